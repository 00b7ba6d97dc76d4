#!/usr/bin/env bash
# Builds libnarrow_train.so on another libtorch, the one inside PyPI's package `torch`, and runs the tests of training
# with it. That library has no headers of Gloo, so several processes are left out.
# Usage: scripts/try_libtorch.sh [--venv FOLDER] [--torch VERSION] [--jobs N] [--build FOLDER] [--compile-only]
#   --venv     a Python environment that has torch; without one, build/libtorch-new/venv is made (--torch: its version)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="" version="" jobs=2 build=build/libtorch-new tests=yes
usage() { sed -n '4,5s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --compile-only) tests=no; shift; continue ;;
    --venv|--torch|--jobs|--build) [ $# -ge 2 ] || usage ;;
    *) usage ;;
  esac
  case $1 in
    --venv) venv=$2 ;;
    --torch) version=$2 ;;
    --jobs) jobs=$2 ;;
    --build) build=$2 ;;
  esac
  shift 2
done

if [ -z "$venv" ]; then
  venv=$build/venv
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/python" -c 'import torch' 2>/dev/null ||
    "$venv/bin/pip" install --quiet "torch${version:+==$version}" numpy
fi
read -r torch found < <("$venv/bin/python" - <<'PYTHON'
import importlib.metadata, importlib.util, pathlib
print(pathlib.Path(importlib.util.find_spec("torch").origin).parent, importlib.metadata.version("torch"))
PYTHON
)
echo "libtorch $found in $torch"

cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O2 -DNARROW_BUILD_BENCH=OFF \
  -DTorch_DIR="$PWD/cmake/torch_wheel" -DNARROW_TORCH_WHEEL="$torch" -DGLOO_INCLUDE_DIR=OFF >"$build.log" 2>&1 ||
  { cat "$build.log" >&2; exit 1; }
targets=(narrow_train)
[ $tests = no ] || targets+=(train_test)
cmake --build "$build" -j "$jobs" --target "${targets[@]}"
[ $tests = no ] || "$build/bin/train_test"
