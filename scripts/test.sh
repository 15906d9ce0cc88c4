#!/usr/bin/env bash
# Sets up, builds and runs every test. Ends with "N passed, N failed"; exits 1 if anything failed.
#   scripts/test.sh            as CI does
#   scripts/test.sh --full     also every room under ASan and UBSan, those with threads under TSan, and longer fuzzing
set -uo pipefail
cd "$(dirname "$0")/.."
full=
[ "${1:-}" = --full ] && full=1
# Under sanitizers in every run: the rooms that read the network, text and checkpoints, those beneath, those that keep
# the pages, and what computes: ops, model, and the engine with its sampler.
asan=(base device http text kv sched dist ops weights sample model engine)
# The rooms whose fuzz targets run; api's own tests take minutes to compile and run in full only.
fuzzed=("${asan[@]}" api)
tsan=()
fuzz_seconds=${FUZZ_SECONDS:-15}
if [ -n "$full" ]; then
  asan=(api app cross_room "${asan[@]}")
  tsan=(base dist http sched engine)
  fuzz_seconds=${FUZZ_SECONDS:-120}
fi
# src/ROOM/.../STEM_fuzz.cc is ROOM_STEM_fuzz.
fuzzers=()
for room in "${fuzzed[@]}"; do
  for source in src/"$room"/*_fuzz.cc src/"$room"/*/*_fuzz.cc; do
    [ -f "$source" ] && fuzzers+=("${room}_$(basename "$source" .cc)")
  done
done
logs=build/test-logs
mkdir -p "$logs"
passed=0
failed=0

# step NAME COMMAND...: one line for each, the whole output only when it fails.
step() {
  local name=$1 log start
  shift
  log="$logs/${name//[^a-zA-Z0-9]/-}.log"
  start=$(date +%s)
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
    echo "ok    $name ($(($(date +%s) - start)) s)$(grep -hoE '^[0-9]+ passed, [0-9]+ failed.*' "$log" | tail -n 1 | sed 's/^/: /')"
  else
    failed=$((failed + 1))
    echo "FAIL  $name ($(($(date +%s) - start)) s), the end of $log:"
    tail -n 60 "$log" | sed 's/^/      /'
  fi
}
# ctest's pattern for these rooms and no others.
any_of() {
  local IFS='|'
  echo "^($*)$"
}
give_up() {
  echo "$passed passed, $failed failed"
  exit 1
}

step 'set up' scripts/setup.sh --tests
[ "$failed" = 0 ] || give_up
python=.venv/bin/python

step 'layering' python3 tests/layering_test.py
step 'format' scripts/check_format.sh
step 'build' scripts/build.sh release all
[ "$failed" = 0 ] || give_up
step 'unit tests' ctest --preset release
step 'verify goldens' scripts/verify_goldens.sh
step 'tokenizer against Hugging Face' $python tests/tokenizer_judge.py
step 'templates against jinja2' $python tests/template_judge.py
step 'clients' $python tests/clients/run.py
step 'client libraries' $python tests/clients/libraries.py
step 'security' $python tests/security/run.py
step 'metrics' $python tests/metrics_test.py
step 'nodes' $python tests/nodes_test.py
step 'load' $python tests/load_test.py --clients 100 --seconds 20
step 'commands' $python tests/commands/run.py
step 'kubernetes manifests' $python tests/kubernetes_test.py
step 'skills' $python tests/skills_test.py
step 'ranks' $python tests/ranks_test.py
step 'speculation' $python tests/speculation_test.py
step 'ablation' $python tests/ablation_test.py
step 'tools' $python tests/tools_test.py
step 'constrained output' $python tests/schema_test.py
step 'official tests of JSON Schema' $python tests/schema_suite_test.py
step 'demo' scripts/demo.sh --once
step 'build with ASan and UBSan' scripts/build.sh asan-ubsan "${asan[@]/%/_test}" "${fuzzers[@]}"
step 'unit tests with ASan and UBSan' env FATHOM_SCHEDULES=0:1000 FATHOM_DEMO_SCHEDULES=4 FATHOM_TEST_SMALL=1 \
  ctest --preset asan-ubsan --no-tests=error -R "$(any_of "${asan[@]}")"
for fuzzer in "${fuzzers[@]}"; do
  step "fuzz $fuzzer" scripts/fuzz.sh "build/asan-ubsan/$fuzzer" "$fuzz_seconds"
done
if [ -n "$full" ]; then
  step 'build with TSan' scripts/build.sh tsan "${tsan[@]/%/_test}"
  step 'unit tests with TSan' env FATHOM_SCHEDULES=0:100 ctest --preset tsan --no-tests=error -R "$(any_of "${tsan[@]}")"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
