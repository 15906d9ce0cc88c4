#!/usr/bin/env bash
# Runs one fuzz target for a bounded time.   scripts/fuzz.sh build/asan-ubsan/NAME [SECONDS]
# Seeds are tests/fuzz_seeds/NAME where there are any; what was learnt stays in build/fuzz-corpus/NAME.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$1
seconds=${2:-60}
name=$(basename "$target")
corpus="build/fuzz-corpus/$name"
mkdir -p "$corpus" build/fuzz-crashes
seeds=()
[ -d "tests/fuzz_seeds/$name" ] && seeds=("tests/fuzz_seeds/$name")
"$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -max_len=65536 -print_final_stats=1 \
  -artifact_prefix="build/fuzz-crashes/$name-" "$corpus" "${seeds[@]}"
