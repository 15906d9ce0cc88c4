"""/v1/completions through the official openai client."""
import openai

from runner import check, equal, raises, test

PROMPT = "<｜User｜>What is 7 + 5?<｜Assistant｜></think>"


def complete(t, prompt=PROMPT, **fields):
    return t.client.completions.create(**{"model": t.model, "prompt": prompt, "temperature": 0, **fields})


@test
def a_completion_has_openais_shape(t):
    answer = complete(t)
    equal(answer.object, "text_completion")
    equal(answer.choices[0].index, 0)
    check(answer.usage.completion_tokens <= 16, "the default limit is 16")
    equal(answer.choices[0].text, t.chat("What is 7 + 5?", max_tokens=16).choices[0].message.content)


@test
def each_kind_of_prompt(t):
    ids = t.post("/tokenize", {"prompt": PROMPT})[1]["tokens"]
    expected = complete(t).choices[0].text
    for prompt in ([PROMPT], ids, [ids], "<｜begin▁of▁sentence｜>" + PROMPT):
        equal(complete(t, prompt).choices[0].text, expected, f"text for {str(prompt)[:40]}")
    several = complete(t, [PROMPT, PROMPT, "<｜User｜>Hi<｜Assistant｜></think>"], n=2)
    equal([c.index for c in several.choices], list(range(6)))
    equal([c.text for c in several.choices][:4], [expected] * 4)


@test
def a_stream_is_the_completion_in_pieces(t):
    whole = complete(t, max_tokens=30)
    chunks = list(complete(t, max_tokens=30, stream=True, stream_options={"include_usage": True}))
    equal("".join(c.choices[0].text for c in chunks if c.choices), whole.choices[0].text)
    equal([c.choices[0].finish_reason for c in chunks if c.choices][-1], whole.choices[0].finish_reason)
    equal(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)


@test
def echo_and_logprobs(t):
    answer = complete(t, "Hello world", echo=True, logprobs=3, max_tokens=4)
    choice = answer.choices[0]
    check(choice.text.startswith("Hello world"))
    lists = choice.logprobs
    count = answer.usage.prompt_tokens + answer.usage.completion_tokens
    equal([len(lists.tokens), len(lists.token_logprobs), len(lists.top_logprobs), len(lists.text_offset)], [count] * 4)
    equal(lists.token_logprobs[0], None)
    check(all(value <= 0 for value in lists.token_logprobs[1:]))
    check(all(3 <= len(top) <= 4 for top in lists.top_logprobs[1:]))
    offset = lists.text_offset[answer.usage.prompt_tokens]
    equal(offset, len("Hello world"))
    scored = complete(t, "Hello world", echo=True, logprobs=0, max_tokens=0)
    equal(scored.choices[0].text, "Hello world")
    equal(scored.usage.completion_tokens, 0)
    for a, b in zip(scored.choices[0].logprobs.token_logprobs[1:], lists.token_logprobs[1:]):
        check(abs(a - b) < 0.05, f"prompt logprobs {a} and {b}")


@test
def stop_and_seed(t):
    full = complete(t, max_tokens=30).choices[0].text
    equal(complete(t, max_tokens=30, stop="=").choices[0].text, full.split("=")[0])
    one = complete(t, temperature=1.0, seed=5).choices[0].text
    equal(complete(t, temperature=1.0, seed=5).choices[0].text, one)


@test
def the_middle_is_filled_in(t):
    def count(text):
        return t.post("/tokenize", {"prompt": text, "add_special_tokens": False})[1]["count"]

    before, after = "def add(a, b):\n    return ", "\nprint(add(1, 2))"
    answer = complete(t, before, suffix=after, max_tokens=8)
    check(answer.choices[0].text, answer)
    # The beginning of the sentence, and the three marks.
    equal(answer.usage.prompt_tokens, count(before) + count(after) + 4)
    whole = complete(t, before, suffix=after, max_tokens=8, echo=True)
    equal(whole.choices[0].text, before + answer.choices[0].text)
    chunks = list(complete(t, before, suffix=after, max_tokens=8, stream=True))
    equal("".join(chunk.choices[0].text for chunk in chunks), answer.choices[0].text)


@test
def what_is_not_available_says_so(t):
    equal(raises(openai.BadRequestError, complete, t, [5, 6], suffix="x").param, "suffix")
    equal(raises(openai.BadRequestError, complete, t, best_of=3).param, "best_of")
    equal(raises(openai.BadRequestError, complete, t, max_tokens=0).param, "max_tokens")
    equal(raises(openai.NotFoundError, complete, t, model="other").code, "model_not_found")
