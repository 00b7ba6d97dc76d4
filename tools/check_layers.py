#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that includes go down the layers only, and a few habits that a machine can see.

Prints one line for each violation and exits with 1 if there is any.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Folders of one rank never include each other; a folder includes lower ranks only.
RANK = {
    "core": 0,
    "quant": 1, "data": 1,
    "graph": 2, "kernels": 2, "calibrate": 2,
    "formats": 3, "runtime": 3,
    "evaluate": 4, "ptq": 4, "llm": 4, "embed": 4,
    "train": 5, "search": 5,
    "report": 6,
    "pipeline": 7,
}
FRONTENDS = ("cli", "capi", "python")
INCLUDE = re.compile(r'^\s*#\s*include\s+"narrow/([a-z_]+)/', re.M)
# The library never prints, aborts or exits (comments and strings are not worth a parser: whole words).
BANNED = re.compile(r"\b(std::cout|std::cerr|printf|puts|abort|std::exit|exit|rand|srand)\s*[(<]")
ALLOWED = re.compile(r"\b(snprintf)\s*\(")
MAX_LINES = 600
MAX_TEST_LINES = 800


def check_file(path: pathlib.Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT)
    parts = name.parts
    problems = []
    if parts[:2] == ("src", "narrow") and len(parts) > 3:
        folder = parts[2]
        if folder not in RANK:
            return [f"{name}: the folder '{folder}' has no rank in tools/check_layers.py"]
        for match in INCLUDE.finditer(text):
            other = match.group(1)
            if other != folder and RANK.get(other, 99) >= RANK[folder]:
                problems.append(f"{name}: {folder} (rank {RANK[folder]}) includes {other}")
        for number, line in enumerate(text.splitlines(), 1):
            code = line.split("//")[0]
            if BANNED.search(code) and not ALLOWED.search(code):
                problems.append(f"{name}:{number}: the library never prints, aborts or exits")
        if path.suffix == ".h" and "#pragma once" not in text:
            problems.append(f"{name}: no #pragma once")
    if not text.startswith("// SPDX-License-Identifier: Apache-2.0"):
        problems.append(f"{name}: no SPDX line at the top")
    lines = text.count("\n")
    limit = MAX_TEST_LINES if parts[0] == "tests" else MAX_LINES
    if lines > limit:
        problems.append(f"{name}: {lines} lines, more than {limit}")
    return problems


def main() -> int:
    problems = []
    files = 0
    for folder in ("src", "tests", "bench", "examples", *FRONTENDS):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".h", ".cpp") and path.is_file():
                files += 1
                problems += check_file(path)
    print("\n".join(problems) if problems else f"layers: {files} files in order")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
