#!/usr/bin/env bash
# Fails and lists the files that clang-format would change. The version decides the result, so only 16 judges.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=$(command -v clang-format-16 || true)
if [ -z "$tool" ]; then
  echo "clang-format-16 is not installed; the format is judged where it is"
  exit 0
fi
git ls-files 'src/*.h' 'src/*.cc' 'src/*.cu' 'src/*.cuh' 'tests/*.cc' | xargs "$tool" --dry-run -Werror
