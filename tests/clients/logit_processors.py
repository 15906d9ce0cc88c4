"""custom_logit_processor as the reference system's client sends it: the pickle that dill makes of a class.

The classes here have the module path and names of that client's, and nothing else of theirs. Runs against a
server of its own, with --enable-custom-logit-processor.
"""
import json
import random
import sys
import types

import dill

import running_server
from runner import check, equal, test, until

MODULE = "sglang.srt.sampling.custom_logit_processor"
THINK_END = "</think>"


def to_str(kind):
    return json.dumps({"callable": dill.dumps(kind).hex()})


def importable(name):
    """A class that pickles by its module's name, as an installed package's does."""
    parts = MODULE.split(".")
    for i in range(1, len(parts) + 1):
        module = sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
        if i > 1:  # as an import would: dill looks for it there
            setattr(sys.modules[".".join(parts[:i - 1])], parts[i - 1], module)
    kind = type(name, (), {"__module__": MODULE})
    setattr(sys.modules[MODULE], name, kind)
    return kind


BUDGET = to_str(importable("DeepSeekR1ThinkingBudgetLogitProcessor"))
DISALLOWED = to_str(importable("DisallowedTokensLogitsProcessor"))
NO_REPEAT = to_str(importable("DeepseekOCRNoRepeatNGramLogitProcessor"))
# What SGLang's client sends for DeepSeekR1ThinkingBudgetLogitProcessor().to_str(): dill's bytes of a class by name.
SENT_FOR_BUDGET = (
    '{"callable": "80049559000000000000008c2a73676c616e672e7372742e73616d706c696e672e637573746f6d5f6c6f6769745f70726f63'
    '6573736f72948c26446565705365656b52315468696e6b696e674275646765744c6f67697450726f636573736f729493942e"}')
UNKNOWN = to_str(importable("SomeOtherLogitProcessor"))


class Local:
    """Pickled by value: code, which the server must not run."""

    def __call__(self, logits, params):
        return logits


Local.__module__ = "__main__"
QUESTION = [{"role": "user", "content": "What is 17 + 25?"}]
THINKING = {"thinking": {"type": "enabled"}}


def tokens_of(t, text):
    return t.post("/tokenize", {"prompt": text, "add_special_tokens": False})[1]["tokens"]


@test
def a_budget_closes_the_thoughts(t):
    end = tokens_of(t, THINK_END)
    for fields in ({"thinking_budget": 4}, {"max_thinking_tokens": 4}):
        for stream in (False, True):
            extra = {**THINKING, **fields, "ignore_eos": True}
            answer = t.client.chat.completions.create(
                model=t.model, messages=QUESTION, temperature=1, seed=3, max_tokens=40, extra_body=extra, stream=stream)
            if stream:
                reasoning = "".join(getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in answer)
            else:
                reasoning = answer.choices[0].message.reasoning_content
                check(answer.usage.model_extra["reasoning_tokens"] <= 4 + 2, answer.usage)
            check(len(tokens_of(t, reasoning)) <= 6, reasoning)
    # On the native endpoint, for several choices at once, and beside a prompt that has begun to think.
    status, answers = t.post("/generate", {
        "text": "<｜User｜>What is 5 + 5?<｜Assistant｜><think>One", "thinking_budget": 6,
        "sampling_params": {"n": 4, "temperature": 1.5, "max_new_tokens": 24, "ignore_eos": True}})
    equal(status, 200, answers)
    begun = len(tokens_of(t, "One"))
    for answer in answers:
        at = answer["output_ids"].index(end[0])
        check(at <= 6 - begun + 1, answer["output_ids"])


def with_server(body):
    flags = ("--model-path", "models/demo", "--enable-custom-logit-processor", "--max-running-requests", "4")
    with running_server.RunningServer(*flags) as server:
        from target import Target
        body(Target(server.base))


@test
def processors_of_the_reference_client(t):
    refused = t.post("/v1/chat/completions", {"messages": QUESTION, "custom_logit_processor": BUDGET})
    equal(refused[0], 400)
    check("--enable-custom-logit-processor" in refused[1]["error"]["message"], refused)

    def body(own):
        equal(BUDGET, SENT_FOR_BUDGET, "the pickle of the client's class")
        end = tokens_of(own, THINK_END)
        extra = {**THINKING, "custom_logit_processor": SENT_FOR_BUDGET, "custom_params": {"thinking_budget": 3}}
        fields = {"model": own.model, "messages": QUESTION, "max_tokens": 40, "temperature": 0}
        answer = own.client.chat.completions.create(**fields, extra_body={**extra, "return_token_ids": True})
        ids = answer.choices[0].model_extra["response_token_ids"]
        check(end[0] in ids[:5], ids)
        said = answer.choices[0].message
        check(said.reasoning_content and said.content, said)
        parts = {"reasoning_content": "", "content": ""}
        for chunk in own.client.chat.completions.create(**fields, extra_body=extra, stream=True):
            for part in parts:
                parts[part] += (chunk.choices and getattr(chunk.choices[0].delta, part, None)) or ""
        equal(parts, {part: getattr(said, part) for part in parts}, "the same, streamed")
        # It thinks longer when nothing stops it.
        free = own.client.chat.completions.create(**fields, extra_body=THINKING).choices[0].message
        check(len(tokens_of(own, free.reasoning_content)) > 5, free)

        free = own.post("/generate", {"text": "Hello", "sampling_params": {"temperature": 0, "max_new_tokens": 8}})
        banned = sorted(set(free[1]["output_ids"]))
        status, other = own.post("/generate", {
            "text": "Hello", "custom_logit_processor": DISALLOWED,
            "sampling_params": {"temperature": 0, "max_new_tokens": 8, "custom_params": {"token_ids": banned}}})
        equal(status, 200, other)
        check(not set(banned) & set(other["output_ids"]), other)

        ids = tokens_of(own, "one two three one two three one two")
        status, other = own.post("/generate", {
            "input_ids": ids, "custom_logit_processor": NO_REPEAT,
            "sampling_params": {"temperature": 0, "max_new_tokens": 60, "ignore_eos": True,
                                "custom_params": {"ngram_size": 2, "window_size": 1000}}})
        equal(status, 200, other)
        whole = ids + other["output_ids"]
        pairs = list(zip(whole, whole[1:]))
        for i in range(len(ids) - 1, len(pairs)):
            check(pairs[i] not in pairs[:i], f"{pairs[i]} again")

        for text in (UNKNOWN, to_str(Local), to_str(print), to_str(dill), "{}", "x"):
            status, answer = own.post("/generate", {"text": "x", "custom_logit_processor": text})
            equal(status, 400, text[:80])
        check("DeepSeekR1ThinkingBudgetLogitProcessor" in own.post(
            "/generate", {"text": "x", "custom_logit_processor": to_str(Local)})[1]["error"]["message"])
        # Every protocol that pickle has, and anything that is nearly one of them.
        kind = sys.modules[MODULE].DisallowedTokensLogitsProcessor
        short = {"temperature": 0, "max_new_tokens": 1, "custom_params": {"token_ids": [5]}}
        rng = random.Random(1)
        for protocol in range(dill.HIGHEST_PROTOCOL + 1):
            pickle = dill.dumps(kind, protocol=protocol)
            ask = {"text": "x", "sampling_params": short}
            equal(own.post("/generate", {**ask, "custom_logit_processor": json.dumps({"callable": pickle.hex()})})[0],
                  200, f"protocol {protocol}")
            for _ in range(40):
                broken = bytearray(pickle)
                for _ in range(rng.randint(1, 4)):
                    broken[rng.randrange(len(broken))] = rng.randrange(256)
                status, _ = own.post("/generate", {
                    **ask, "custom_logit_processor": json.dumps({"callable": bytes(broken).hex()})})
                check(status in (200, 400), status)
        check(until(lambda: own.busy() == 0), "nothing runs")

    with_server(body)
