#!/usr/bin/env bash
# What needs an NVIDIA GPU, on a built tree: kernel tests, goldens, random schedules, skills, clients.
#   scripts/test_gpu.sh              ends with "N passed, N failed"
#   scripts/test_gpu.sh --sanitize   also the kernel tests under compute-sanitizer (memcheck and racecheck)
# PYTHON names an interpreter that has the packages of tests/requirements.txt. JOBS steps run side by side (default 6:
# the models are small, and most of a step's time is the processor's), but for those whose ranks wait for each other on the
# GPU; none may take longer than LIMIT seconds.
set -uo pipefail
cd "$(dirname "$0")/.."
build=build/release
python=${PYTHON:-.venv/bin/python}
jobs=${JOBS:-6}
limit=${LIMIT:-1800}
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
started=0

# run NAME COMMAND...: one line for each, the end of the output only when it fails.
run() {
  local name=$1 log start
  shift
  log="$results/${name//[^a-zA-Z0-9]/-}.log"
  start=$(date +%s)
  if timeout "$limit" "$@" >"$log" 2>&1; then
    touch "${log%.log}.passed"
    echo "ok    $name ($(($(date +%s) - start)) s)$(grep -hoE '^[0-9]+ passed, [0-9]+ failed.*|\[  PASSED  \].*|ERROR SUMMARY: .*|RACECHECK SUMMARY: .*' "$log" | tail -n 1 | sed 's/^/: /')"
  else
    echo "FAIL  $name ($(($(date +%s) - start)) s)
$({ grep -nE "^ *(FAIL|fail|\[  FAILED)" "$log" | head -n 20; tail -n 40 "$log"; } | sed 's/^/      /')"
  fi
}
# step NAME COMMAND...: in the background, as soon as fewer than $jobs are running.
step() {
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
  started=$((started + 1))
  run "$@" &
}
# alone NAME COMMAND...: by itself, once all that run have ended.
alone() {
  wait
  started=$((started + 1))
  run "$@"
}

# The longest first.
if [ "${1:-}" = --sanitize ]; then
  # Statistics of draws need many of them, which run the same code as one.
  for shard in 0 1 2 3; do
    step "racecheck of ops, part $((shard + 1)) of 4" env FATHOM_TEST_SMALL=1 GTEST_TOTAL_SHARDS=4 GTEST_SHARD_INDEX=$shard \
      compute-sanitizer --tool racecheck --error-exitcode 1 $build/ops_cuda_test
  done
  step 'racecheck of sample' env FATHOM_TEST_SMALL=1 compute-sanitizer --tool racecheck --error-exitcode 1 \
    $build/sample_cuda_test --gtest_filter='-*DrawsEachTokenAsOftenAsItShould'
  for room in device ops sample; do
    step "memcheck of $room" compute-sanitizer --tool memcheck --error-exitcode 1 $build/${room}_cuda_test
  done
  step 'memcheck of the demo model' compute-sanitizer --tool memcheck --error-exitcode 1 \
    $build/fathom verify --model-path models/demo --golden tests/golden/demo.safetensors --device cuda
fi
for room in device ops sample model; do step "tests of $room" $build/${room}_cuda_test; done
step 'goldens' scripts/verify_goldens.sh --device cuda
# What GPUs older than Hopper run, as far as this one can show it.
step 'tests of ops, portable kernels' env FATHOM_PORTABLE_KERNELS=1 $build/ops_cuda_test
step 'goldens, portable kernels' env FATHOM_PORTABLE_KERNELS=1 scripts/verify_goldens.sh --device cuda
step 'random schedules' env FATHOM_TEST_DEVICE=cuda $build/cross_room_test --gtest_filter='*Schedules*'
if nvidia-smi --query-gpu=compute_cap --format=csv,noheader | grep -q '^9'; then
  step 'random schedules, FP8 activations' env FATHOM_TEST_DEVICE=cuda FATHOM_TEST_FP8_ACTIVATIONS=on \
    $build/cross_room_test --gtest_filter='*Schedules*'
fi
step 'skills' "$python" tests/skills_test.py
step 'speculation' env FATHOM_TEST_DEVICE=cuda $build/engine_test --gtest_filter='Speculation.*'
step 'speculation, served' env FATHOM_TEST_DEVICE=cuda "$python" tests/speculation_test.py
step 'ablation' env FATHOM_TEST_DEVICE=cuda "$python" tests/ablation_test.py
step 'constrained output' "$python" tests/schema_test.py
step 'clients' "$python" tests/clients/run.py
# Ranks that share a GPU.
alone 'combinations' env FATHOM_TEST_DEVICE=cuda $build/cross_room_test --gtest_filter='-*Schedules*'
for room in dist engine; do alone "tests of $room" $build/${room}_cuda_test; done
if [ "$(nvidia-smi -L | wc -l)" -ge 2 ]; then
  alone 'goldens on two GPUs' scripts/verify_goldens.sh --device cuda --tp 2
  alone 'goldens, experts apart' scripts/verify_goldens.sh --device cuda --tp 2 --ep-size 2
  alone 'two nodes' env FATHOM_TEST_DEVICE=cuda "$python" tests/nodes_test.py
  alone 'goldens, layers apart' scripts/verify_goldens.sh --device cuda --pp-size 2
fi
if [ "${1:-}" = --sanitize ]; then
  # Not those that wait on purpose, or thousands of times.
  alone 'memcheck of dist' compute-sanitizer --tool memcheck --error-exitcode 1 $build/dist_cuda_test \
    --gtest_filter='-*ReplayedGraphs*:*DoesNotCome*:*Abort*:*NamesRanks*'
fi
passed=$(find "$results" -name '*.passed' | wc -l)
echo "$passed passed, $((started - passed)) failed"
[ "$passed" = "$started" ]
