"""`fathom serve` on several ranks of one process: the answers of one rank, groups of requests, and their figures.

  ranks_test.py [-- FLAGS OF fathom serve]

The last line is "N passed, N failed".
"""
import concurrent.futures
import json
import pathlib
import re
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "models/demo/training")]
import skills  # noqa: E402
from running_server import RunningServer  # noqa: E402

BASE = ("--model-path", "models/demo", "--dtype", "float32", "--max-total-tokens", "16384", "--enable-metrics")
SPLITS = {
    "tensors": ("--tp", "2"),
    "experts": ("--tp", "4", "--enable-ep-moe"),
    "groups of requests": ("--tp", "2", "--dp", "2", "--enable-dp-attention"),
    "groups, experts that move, guesses": ("--tp", "4", "--dp", "2", "--enable-dp-attention", "--ep-size", "4",
                                           "--ep-num-redundant-experts", "4", "--enable-eplb",
                                           "--eplb-rebalance-num-iterations", "20", "--speculative-algorithm", "EAGLE"),
    "stages": ("--pp-size", "2",),
    "replicas": ("--dp", "2",),
}


def post(base, body, headers=None):
    request = urllib.request.Request(base + "/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as failure:
        return failure.code, json.load(failure)


def chat(text, **more):
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 48, **more}


def answers(base, questions):
    def one(question):
        status, body = post(base, chat(question))
        return body["choices"][0]["message"]["content"] if status == 200 else f"status {status}: {body}"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, questions))


def loads(server):
    """Once nothing runs: a request's pages become the cache's a moment after its answer."""
    for _ in range(200):
        all_loads = json.loads(server.get("/get_load")[1])["loads"]
        if not any(load["num_total_reqs"] or load["num_used_tokens"] for load in all_loads):
            break
        time.sleep(0.01)
    return all_loads


def check_groups(server, check):
    """Two groups: placement by hand, and the figures of each."""
    before = [load["num_cached_tokens"] for load in loads(server)]
    long_prompt = "Sort these words alphabetically: " + ", ".join(f"word{i}" for i in range(60))
    for _ in range(2):
        status, _ = post(server.base, chat(long_prompt), {"X-Data-Parallel-Rank": "1"})
        check("a rank that was asked for", status == 200)
    grown = [load["num_cached_tokens"] - old for load, old in zip(loads(server), before)]
    check("it alone took the request", grown[0] == 0 and grown[1] > 64)
    _, body = post(server.base, chat(long_prompt, data_parallel_rank=1))
    check("its prefix is cached there", body["usage"]["prompt_tokens_details"]["cached_tokens"] > 64)
    _, body = post(server.base, chat(long_prompt))
    check("and it is chosen for it", body["usage"]["prompt_tokens_details"]["cached_tokens"] > 64)
    check("no such rank", post(server.base, chat("Hi", data_parallel_rank=2))[0] == 400)
    check("no rank at all", post(server.base, chat("Hi"), {"X-Data-Parallel-Rank": "one"})[0] == 400)
    ranks = re.findall(r'^sglang:num_running_reqs{.*dp_rank="(\d+)"} ', server.get("/metrics")[1], re.M)
    check("/metrics has each", ranks == ["0", "1"])


def main():
    flags = sys.argv[2:] if sys.argv[1:2] == ["--"] else []
    questions = [q[0] for name in ("add", "linear", "capital", "words_task") for q in skills.eval_set(name, 8, 5)]
    passed = failed = 0

    def check(name, good):
        nonlocal passed, failed
        passed, failed = passed + bool(good), failed + (not good)
        if not good:
            print(f"FAIL {name}")

    with RunningServer(*BASE, *flags) as server:
        expected = answers(server.base, questions)
    for name, split in SPLITS.items():
        with RunningServer(*BASE, *split, *flags) as server:
            got = answers(server.base, questions)
            check(f"{name}: the answers of one rank", got == expected)
            info = json.loads(server.get("/server_info")[1])
            check(f"{name}: pages leaked", "fathom:pages_leaked 0" in re.sub(r"{[^}]*}", "", server.get("/metrics")[1]))
            if len(info["internal_states"]) == 2:
                taken = [state["finished_requests"] for state in info["internal_states"]]
                check(f"{name}: both groups worked, {taken}", min(taken) > len(questions) // 8)
                check_groups(server, lambda what, good: check(f"{name}: {what}", good))
            if "--enable-eplb" in split:
                check(f"{name}: experts were moved, {info['eplb']}", info["eplb"]["moved_experts"] > 0)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
