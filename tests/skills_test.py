"""The demo model must answer fresh problems of its skills through the server, with and without the prefix cache.

For each skill that has one right answer: N problems, 16 at a time, temperature 0, at least 99 % right; and the answers
with the prefix cache on and off are the same, word for word.
"""
import concurrent.futures
import json
import os
import pathlib
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "models/demo/training"))
import skills  # noqa: E402
from running_server import RunningServer  # noqa: E402

NAMES = ["add", "sub", "mul", "linear", "word_problem", "capital", "hanzi", "words_task", "extract_json", "lookup"]
PROBLEMS = int(os.environ.get("SKILL_PROBLEMS", "200"))
SEED = int(os.environ.get("SKILL_SEED", "90210"))


def ask(base, question, thinking):
    body = {"model": "default", "temperature": 0, "max_tokens": 512,
            "messages": [{"role": "user", "content": question}],
            "chat_template_kwargs": {"thinking": thinking}}
    request = urllib.request.Request(base + "/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def answers(base, problems):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda p: ask(base, p[0], p[1]), problems))


def main():
    sets = {name: skills.eval_set(name, PROBLEMS, SEED) for name in NAMES}
    got = {}
    for flags in ([], ["--disable-radix-cache"]):
        with RunningServer("--model-path", "models/demo", *flags) as server:
            got[bool(flags)] = {name: answers(server.base, sets[name]) for name in NAMES}
    passed = failed = 0
    for name in NAMES:
        right = 0
        for (question, thinking, expected), answer in zip(sets[name], got[False][name]):
            final = answer.split("</think>")[-1] if thinking else answer
            if final == expected:
                right += 1
            else:
                print(f"  {name}: {question!r}: got {final!r}, expected {expected!r}")
        same = got[False][name] == got[True][name]
        good = right >= 0.99 * PROBLEMS and same
        passed, failed = passed + good, failed + (not good)
        print(f"{'ok  ' if good else 'FAIL'} {name}: {right} of {PROBLEMS} right, prefix cache on and off "
              f"{'the same' if same else 'DIFFER'}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
