"""Chats of several turns: the server finds its own answers in the prefix cache, and says why when it does not."""
from runner import check, equal, test


def turn(t, messages, **extra):
    answer = t.client.chat.completions.create(
        model=t.model, messages=messages, temperature=3, max_tokens=40,
        extra_body={"return_token_ids": True, "return_prompt_token_ids": True, "explain_cache": True,
                    "regex": "[a-z]{2,9}( [a-z]{2,9}){4,9}", **extra})
    choice = answer.choices[0]
    return (choice.message.content, choice.model_extra["prompt_token_ids"], choice.model_extra["response_token_ids"],
            answer.usage.prompt_tokens_details.cached_tokens, answer.usage.model_extra["prompt_cache_miss"])


@test
def odd_tokenisations_hit_the_cache(t):
    messages = [{"role": "user", "content": "Say something odd. " * 4}]
    page = t.get("/server_info")[1]["page_size"]
    odd = 0
    before = None
    for number in range(10):
        content, prompt, output, cached, miss = turn(t, messages, seed=number, cache_salt="odd turns")
        if before is not None:
            equal(prompt[:len(before)], before, "the tokens of the turns before")
            # The last token of an answer is computed only if its step began before the end was known.
            check(cached in ((len(before) - 1) // page * page, len(before) // page * page),
                  f"{cached} cached of {len(before)}")
        text = t.post("/tokenize", {"prompt": content, "add_special_tokens": False})[1]["tokens"]
        produced = output[:-1] if output[-1] == 1 else output
        odd += text != produced
        before = prompt + output
        messages += [{"role": "assistant", "content": content}, {"role": "user", "content": f"And {number}?"}]
    check(odd >= 4, f"only {odd} odd tokenisations")


@test
def misses_are_explained(t):
    first = [{"role": "system", "content": "You are a patient teacher of arithmetic and history. " * 3},
             {"role": "user", "content": "What is 2 + 2?"}]
    salt = {"cache_salt": "misses"}
    miss = turn(t, first, **salt)[4]
    equal(miss["reason"], "never_seen")
    equal(turn(t, first, **salt)[4]["reason"], "page_tail")
    changed = [{**first[0], "content": first[0]["content"].replace("history", "poetry", 1)}, first[1]]
    miss = turn(t, changed, **salt)[4]
    equal(miss["reason"], "first_difference")
    check("history" in miss["expected_text"] and "poetry" in miss["got_text"], miss)
    check(miss["before_text"].rstrip().endswith("arithmetic and"), miss)
    equal(turn(t, first, cache_salt="another")[4]["reason"], "never_seen")
    t.post("/flush_cache", {})
    equal(turn(t, first, **salt)[4]["reason"], "evicted")
