"""Guessed tokens must change nothing but the speed: the demo model's answers to problems of its skills, greedy, sampled
with a seed and under grammars, are the same with every kind of speculation as without, and enough guesses are right.

Prints the tokens a second of one request at a time; those are no test, for other work may share the machine.
"""
import concurrent.futures
import json
import os
import pathlib
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "models/demo/training"))
import skills  # noqa: E402
from running_server import RunningServer  # noqa: E402

NAMES = ["add", "sub", "mul", "linear", "word_problem", "capital", "hanzi", "words_task", "extract_json", "lookup"]
PROBLEMS = int(os.environ.get("SKILL_PROBLEMS", "12"))
SEED = int(os.environ.get("SKILL_SEED", "4711"))
DEVICE = os.environ.get("FATHOM_TEST_DEVICE", "cpu")
# Flags, and the least mean accept length of greedy answers.
ALWAYS = "--no-speculative-adaptive"
KINDS = {
    "EAGLE (1, 1, 2)": (["--speculative-algorithm", "EAGLE", "--speculative-num-steps", "1", "--speculative-eagle-topk",
                         "1", "--speculative-num-draft-tokens", "2", ALWAYS], 1.9),
    "NEXTN (3, 1, 4)": (["--speculative-algorithm", "NEXTN", ALWAYS], 2.4),
    "NGRAM (3, 1, 4)": (["--speculative-algorithm", "NGRAM", ALWAYS], 1.2),
    "EAGLE (3, 4, 16)": (["--speculative-algorithm", "EAGLE", "--speculative-num-steps", "3", "--speculative-eagle-topk",
                          "4", "--speculative-num-draft-tokens", "16", ALWAYS], 2.5),
    "EAGLE, where it pays": (["--speculative-algorithm", "EAGLE"], 1.0),
}


def call(base, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


# What an answer must look like; some of it is not what the model would write by itself.
FORMS = [{"response_format": {"type": "json_object"}}, {"regex": "(The answer is )?-?[0-9]{1,6}( [a-z]+)*\\."},
         {"response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": {
             "type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
                                              "values": {"type": "array", "maxItems": 4,
                                                         "items": {"type": "integer", "minimum": 0, "maximum": 500}}},
             "required": ["name", "values"], "additionalProperties": False}}}}]


def ask(base, problem, number, sampled, constrained=False):
    question, thinking, _ = problem
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": 256, "temperature": 0,
            "chat_template_kwargs": {"thinking": thinking}, "logprobs": True}
    if constrained:
        body |= FORMS[number % len(FORMS)] | {"max_tokens": 96, "thinking_budget": number % 20}
        sampled = number % 2 == 1
    if sampled:
        body |= {"temperature": 1.3, "top_p": 0.95, "seed": number, "presence_penalty": 0.2}
    answer = call(base, "/v1/chat/completions", body)
    choice = answer["choices"][0]
    return [[entry["token"] for entry in choice["logprobs"]["content"]], choice["message"]["content"],
            choice["finish_reason"]], answer["usage"]


def run(flags, problems):
    """The answers, the accept length of greedy ones, and tokens a second of one request at a time."""
    with RunningServer("--model-path", "models/demo", "--device", DEVICE, *flags) as server:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            jobs = list(enumerate(problems))
            greedy = list(pool.map(lambda job: ask(server.base, job[1], job[0], False), jobs))
            state = call(server.base, "/server_info")["internal_states"][0]
            sampled = list(pool.map(lambda job: ask(server.base, job[1], job[0], True), jobs))
            before = call(server.base, "/server_info")["internal_states"][0].get("spec_accept_token_num", 0)
            constrained = list(pool.map(lambda job: ask(server.base, job[1], job[0], False, True), jobs))
            after = call(server.base, "/server_info")["internal_states"][0].get("spec_accept_token_num", 0)
        start, tokens = time.monotonic(), 0
        for number, problem in enumerate(problems[::5]):
            tokens += ask(server.base, problem, number, False)[1]["completion_tokens"]
        speed = tokens / (time.monotonic() - start)
        native = call(server.base, "/generate", {"text": "1, 2, 3, 4,", "sampling_params": {"max_new_tokens": 16,
                                                                                        "temperature": 0}})
    return greedy, sampled, constrained, state.get("spec_accept_length"), after - before, speed, native


def main():
    problems = [problem for name in NAMES for problem in skills.eval_set(name, PROBLEMS, SEED)]
    wanted_greedy, wanted_sampled, wanted_constrained, _, _, plain_speed, plain = run([], problems)
    print(f"without: {plain_speed:.0f} tokens/s, one request at a time")
    passed = failed = 0

    def check(good, what):
        nonlocal passed, failed
        passed, failed = passed + bool(good), failed + (not good)
        print(f"{'ok  ' if good else 'FAIL'} {what}")

    check("spec_accept_length" not in plain["meta_info"], "nothing is told of guesses where there are none")
    for name, (flags, least) in KINDS.items():
        greedy, sampled, constrained, length, held, speed, native = run(flags, problems)
        for kind, got, wanted in (("greedy", greedy, wanted_greedy), ("sampled", sampled, wanted_sampled),
                                  ("constrained", constrained, wanted_constrained)):
            same = sum(a[0] == b[0] for a, b in zip(got, wanted))
            check(same == len(problems), f"{name}: {same} of {len(problems)} {kind} answers are the same tokens")
        check(length >= least, f"{name}: {length:.2f} tokens a verify step, at least {least}; {speed:.0f} tokens/s, "
                               f"{speed / plain_speed:.2f} times")
        check(ALWAYS not in flags or held > 0, f"{name}: {held} guesses held under grammars")
        info = native["meta_info"]
        # The first token comes of the prompt, the last one perhaps of a step that had no room for guesses.
        verified = info["spec_verify_ct"] + info["spec_accept_token_num"] + 2
        always = ALWAYS in flags
        check(native["output_ids"] == plain["output_ids"] and (not always or verified >= info["completion_tokens"])
              and sum(info["spec_accept_histogram"]) == info["spec_verify_ct"]
              and (1 if always else 0) <= info["spec_accept_length"] <= 4 and 0 <= info["spec_accept_rate"] <= 1, f"{name}: meta_info")
        details = greedy[0][1]["completion_tokens_details"]
        check(not always or details["accepted_prediction_tokens"] + details["rejected_prediction_tokens"] > 0,
              f"{name}: usage")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
