#!/usr/bin/env bash
# Fails and names the files that clang-format would change.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
git ls-files '*.h' '*.cpp' | xargs -r clang-format --dry-run --Werror
echo "format: $(git ls-files '*.h' '*.cpp' | wc -l) files in order"
