#!/usr/bin/env bash
# `fathom verify` on every golden case and the demo model, in float32 and bfloat16. Flags are passed on
# (--device cuda); FATHOM names another binary.
set -uo pipefail
cd "$(dirname "$0")/.."
fathom=${FATHOM:-build/release/fathom}
flags=("$@")
passed=0
failed=0
check() {
  echo "== $*"
  if "$fathom" verify "$@" ${flags[@]+"${flags[@]}"}; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}
for dtype in float32 bfloat16; do
  for case in tests/golden/*/; do
    check --model-path "$case" --golden "${case}golden.safetensors" --dtype $dtype
    [ $dtype = float32 ] && check --model-path "$case" --golden "${case}golden.safetensors" --dtype $dtype --disable-mla
  done
  check --model-path models/demo --golden tests/golden/demo.safetensors --dtype $dtype
done
# Caches of FP8, which GPUs have.
if [[ " ${flags[*]-} " == *" cuda "* ]]; then
  for case in tests/golden/*/; do
    for cache in fp8_e4m3 fp8_e5m2; do
      check --model-path "$case" --golden "${case}golden.safetensors" --dtype bfloat16 --kv-cache-dtype $cache
    done
  done
  # Activations in FP8 too, which narrow models get only where it is asked for. On a GPU that multiplies it.
  if [ -z "${FATHOM_PORTABLE_KERNELS:-}" ] && nvidia-smi --query-gpu=compute_cap --format=csv,noheader | grep -q '^9'; then
    check --model-path tests/golden/v3_fp8 --golden tests/golden/v3_fp8/golden.safetensors --fp8-activations on
    check --model-path models/demo --golden tests/golden/demo.safetensors --fp8-activations on
  fi
fi
# Split over ranks, where that is built: on the CPU.
if [[ " ${flags[*]-} " != *" cuda "* ]]; then
  check --model-path tests/golden/v3_fp8 --golden tests/golden/v3_fp8/golden.safetensors --dtype float32 --tp 16
  check --model-path models/demo --golden tests/golden/demo.safetensors --dtype bfloat16 --tp 4
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
