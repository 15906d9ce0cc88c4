#!/usr/bin/env bash
# From a fresh Debian or Ubuntu machine to a streamed answer: installs, builds, serves the demo model, asks it.
#   scripts/demo.sh          then leaves the server running until Ctrl-C
#   scripts/demo.sh --once   one answer, then exits
set -euo pipefail
cd "$(dirname "$0")/.."
once=
[ "${1:-}" = --once ] && once=1
port=${PORT:-30000}

scripts/setup.sh
scripts/build.sh
build/release/fathom serve --model-path models/demo --port "$port" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true' EXIT

for _ in $(seq 200); do
  curl -fs "http://127.0.0.1:$port/ready" >/dev/null 2>&1 && break
  kill -0 "$server" 2>/dev/null || { echo "demo: the server stopped; its last lines say why" >&2; exit 1; }
  sleep 0.1
done

question='What is 478 + 3964?'
echo
echo "Q: $question"
printf 'A: '
curl -fsN "http://127.0.0.1:$port/v1/chat/completions" -H 'Content-Type: application/json' \
  -d "{\"model\": \"default\", \"stream\": true, \"temperature\": 0, \"messages\": [{\"role\": \"user\", \"content\": \"$question\"}], \"chat_template_kwargs\": {\"thinking\": true}}" |
  python3 -u -c '
import json, sys
for line in sys.stdin:
    if line.startswith("data: {"):
        for choice in json.loads(line[6:])["choices"]:
            print(choice["delta"].get("content") or "", end="", flush=True)
print()'
echo
[ -n "$once" ] && exit 0
echo "The server runs at http://127.0.0.1:$port/v1 (any OpenAI client; any API key). Ctrl-C stops it."
wait "$server"
