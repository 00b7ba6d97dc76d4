#!/usr/bin/env bash
# Tests under the address and undefined-behaviour sanitizers. Usage: scripts/sanitize.sh [FOLDER...]
# Without folders: all of them. CI takes those that read files and define integers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
targets=()
for folder in "$@"; do targets+=("${folder}_test"); done
scripts/build.sh asan "${targets[@]}" | tail -1
# libgomp and oneDNN keep their pools until exit; the leaks that matter are ours.
export ASAN_OPTIONS=allocator_may_return_null=1  # running out of memory is tested
export LSAN_OPTIONS=suppressions=$PWD/tools/lsan.supp
pattern=$(IFS='|'; echo "^(${*})\$")
[ $# -gt 0 ] || pattern=.
ctest --test-dir build/asan --output-on-failure -R "$pattern" -j "$(nproc)"
