#!/usr/bin/env bash
# Explores one fuzz target from its corpus for some seconds. Usage: scripts/fuzz.sh TARGET [SECONDS]
# New inputs go to build/fuzz/found/TARGET; the corpus in the tree is only read.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$1
seconds=${2:-600}
found=build/fuzz/found/$target
mkdir -p "$found"
# Targets that write files sync them: in memory that takes no time.
if [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi
build/fuzz/bin/"$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 -max_len=65536 \
  -print_final_stats=1 -verbosity=0 -artifact_prefix="$found/crash-" "$found" \
  "tests/fuzz/corpus/$target"
echo "$target: $seconds s without a finding"
