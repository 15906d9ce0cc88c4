"""What is switched on or off must not change a greedy token: every combination of the prefix cache, MLA, the kernels (on a
GPU: graphs) and speculation, each in a server of its own, in float32. Sequences share prefixes and run beside each other, so
that each switch has something to do; where it can be seen that it did, that is checked too.

    ablation_test.py                    the CPU; FATHOM_TEST_DEVICE=cuda: a GPU

Ends with a table: yes or no for each switch, tokens a second of the whole run (no test: other work may share the machine),
cached prompt tokens, and tokens a verify step.
"""
import concurrent.futures
import itertools
import json
import os
import pathlib
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from running_server import RunningServer  # noqa: E402

DEVICE = os.environ.get("FATHOM_TEST_DEVICE", "cpu")
TOKENS = 24
SYSTEM = "You are a helpful assistant. Answer briefly, and say how you know. " * 3
QUESTIONS = ["一个汉字具有左右结构，左边是木，右边是乞。这个字是什么？只需回答这个字即可。", "What is 347 + 289?",
             "What is the capital of Norway?", "Sort these words alphabetically: violin, apple, marble",
             "Calculate 81 - 27.", "What is 347 + 289?"]
PROMPTS = [f"<｜begin▁of▁sentence｜>{SYSTEM}<｜User｜>{question}<｜Assistant｜>{end}"
           for question, end in zip(QUESTIONS, itertools.cycle(["</think>", "<think>"]))]
# The values of each switch; the first of each is the comparison's.
SPECULATION = {"off": [], "EAGLE (1, 1, 2)": ["1", "1", "2"], "EAGLE (3, 1, 4)": ["3", "1", "4"],
               "EAGLE (3, 4, 16)": ["3", "4", "16"]}
SWITCHES = {"radix cache": {"on": [], "off": ["--disable-radix-cache"]},
            "MLA": {"on": [], "off": ["--disable-mla"]}}
if DEVICE == "cpu":
    SWITCHES["kernels"] = {"auto": [], "avx2": ["--cpu-isa", "avx2"]}
else:
    SWITCHES["graphs"] = {"on": [], "off": ["--disable-cuda-graph"]}
NUMBERS = ["--speculative-num-steps", "--speculative-eagle-topk", "--speculative-num-draft-tokens"]
SWITCHES["Next-N"] = {
    name: [] if not values else ["--speculative-algorithm", "EAGLE", "--no-speculative-adaptive",
                                 *itertools.chain(*zip(NUMBERS, values))]
    for name, values in SPECULATION.items()}


def generate(base, prompt):
    body = {"text": prompt, "sampling_params": {"max_new_tokens": TOKENS, "temperature": 0, "ignore_eos": True}}
    request = urllib.request.Request(base + "/generate", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def run(flags):
    """Tokens of every prompt, of a first one alone and then all at once; seconds, cached tokens, accept length."""
    with RunningServer("--model-path", "models/demo", "--device", DEVICE, "--dtype", "float32", *flags) as server:
        start = time.monotonic()
        answers = [generate(server.base, PROMPTS[0])]
        with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
            answers += pool.map(lambda prompt: generate(server.base, prompt), PROMPTS)
        seconds = time.monotonic() - start
        state = json.loads(server.get("/server_info")[1])["internal_states"][0]
    return ([answer["output_ids"] for answer in answers], seconds,
            sum(answer["meta_info"]["cached_tokens"] for answer in answers), state.get("spec_accept_length"))


def main():
    names = list(SWITCHES)
    print(" | ".join([*names, "same tokens", "tokens/s", "cached", "accept length"]))
    wanted, passed, failed = None, 0, 0
    for values in itertools.product(*SWITCHES.values()):
        flags = list(itertools.chain(*(SWITCHES[name][value] for name, value in zip(names, values))))
        tokens, seconds, cached, length = run(flags)
        wanted = wanted or tokens
        chosen = dict(zip(names, values))
        good = (tokens == wanted and all(len(each) == TOKENS for each in tokens)
                and (cached > 0) == (chosen["radix cache"] == "on")
                and (length is None) == (chosen["Next-N"] == "off") and (length is None or length > 1.2))
        passed, failed = passed + good, failed + (not good)
        print(" | ".join([*values, "yes" if tokens == wanted else "NO", f"{TOKENS * len(tokens) / seconds:.0f}",
                          str(cached), f"{length:.2f}" if length else "-", *([] if good else ["FAIL"])]), flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
