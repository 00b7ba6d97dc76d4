#!/usr/bin/env bash
# Set-up, build, and the main job on the network and the data that come with it: quantize, verify, compare, measure.
# With --llm: the same for the language model that comes with it.
# Usage: scripts/demo.sh [--llm] [--no-build]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=yes llm=no
for word in "$@"; do
  case $word in
    --no-build) build=no ;;
    --llm) llm=yes ;;
    *) echo "usage: scripts/demo.sh [--llm] [--no-build]" >&2 && exit 2 ;;
  esac
done
if [ $build = yes ]; then
  scripts/setup.sh
  scripts/build.sh release narrow_cli | tail -1
fi
narrow=${NARROW:-build/release/bin/narrow}
data=/usr/share/datasets/fashion-mnist
out=build/demo
mkdir -p "$out"

say() { printf "\n$ narrow %s\n" "$*"; "$narrow" "$@"; }

if [ $llm = yes ]; then
  exec python3 scripts/demo_llm.py "$narrow" assets/novels-7m "$out"
fi

say quantize assets/fashion_cnn.onnx -o "$out/fashion_cnn.int8.onnx" --mode static --weights int8 --activations uint8 \
  --data "mnist:$data,split=train" --eval-data "mnist:$data,split=test" --calibration-samples 500 --max-drop 0.5
say kernels "$out/fashion_cnn.int8.onnx"
say bench assets/fashion_cnn.onnx --batch 1 --threads 1
say bench "$out/fashion_cnn.int8.onnx" --batch 1 --threads 1

# The table: every figure comes from the program's own JSON.
python3 - "$narrow" "$out/fashion_cnn.int8.onnx" "$data" <<'PYTHON'
import json, os, subprocess, sys
narrow, quantized, data = sys.argv[1:]
def ask(*args):
    return json.loads(subprocess.run([narrow, *args, "--json"], check=True, capture_output=True, text=True).stdout)
rows = []
for title, model in (("float32", "assets/fashion_cnn.onnx"), ("int8", quantized)):
    top1 = ask("eval", model, "--data", f"mnist:{data},split=test", "--metric", "top1")
    bench = [ask("bench", model, "--batch", b, "--threads", "1")["median_us"] for b in ("1", "32")]
    rows.append((title, top1["value"], os.path.getsize(model), *bench))
print("\nFashion CNN on Fashion-MNIST (10,000 test images), one thread\n")
print(f"{'':10}{'top-1 %':>10}{'size, KB':>12}{'batch 1, us':>14}{'batch 32, us':>14}")
for title, top1, size, one, many in rows:
    print(f"{title:10}{top1:>10.2f}{size / 1024:>12.0f}{one:>14.0f}{many:>14.0f}")
f, q = rows
print(f"{'ratio':10}{q[1] - f[1]:>+10.2f}{q[2] / f[2]:>12.2f}{f[3] / q[3]:>13.1f}x{f[4] / q[4]:>13.1f}x")
PYTHON
