"""/v1/chat/completions through the official openai client."""
import asyncio
import json
from typing import Annotated, Literal

import openai
import pydantic

from runner import check, equal, raises, test

SUM, SUM_ANSWER = "What is 7 + 5?", "7 + 5 = 12."
LONG = "Tell me a story about a fox named Mia."
THINK = {"chat_template_kwargs": {"thinking": True}}


def text_of(stream):
    """(text, finish reasons, usage) of a stream of chunks with one choice."""
    text, finishes, usage = "", [], None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            if choice.finish_reason:
                finishes.append(choice.finish_reason)
    return text, finishes, usage


@test
def models_are_listed(t):
    model = t.client.models.retrieve(t.model)
    equal(model.id, t.model)
    equal(model.object, "model")
    check(model.max_model_len > 0)
    equal(raises(openai.NotFoundError, t.client.models.retrieve, "no-such-model").status_code, 404)


@test
def an_answer_has_openais_shape(t):
    answer = t.chat(SUM, extra_body=THINK)
    equal(answer.object, "chat.completion")
    equal(answer.model, t.model)
    choice = answer.choices[0]
    equal(choice.message.role, "assistant")
    check(choice.message.content.endswith(SUM_ANSWER), choice.message.content)
    equal(choice.finish_reason, "stop")
    usage = answer.usage
    equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
    equal(usage.prompt_cache_hit_tokens + usage.prompt_cache_miss_tokens, usage.prompt_tokens)
    check(answer._request_id == answer.id, "x-request-id is the answer's id")


@test
def roles_and_text_parts(t):
    answer = t.client.chat.completions.create(model="default", temperature=0, max_tokens=4, messages=[
        {"role": "system", "content": "You answer."},
        {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "42"}])
    equal(answer.usage.completion_tokens <= 4, True)


@test
def a_stream_is_the_answer_in_pieces(t):
    whole = t.chat(LONG, max_tokens=80)
    chunks = list(t.chat(LONG, max_tokens=80, stream=True, stream_options={"include_usage": True}))
    text, finishes, usage = text_of(chunks)
    equal(text, whole.choices[0].message.content)
    equal(finishes, [whole.choices[0].finish_reason])
    equal(usage.completion_tokens, whole.usage.completion_tokens)
    equal(chunks[0].choices[0].delta.role, "assistant")
    equal(chunks[-1].choices, [])
    equal(len({chunk.id for chunk in chunks}), 1, "ids in a stream")
    check(len(chunks) > 10, "the text comes token by token")


@test
def usage_in_every_chunk_when_asked(t):
    counts = [chunk.usage.completion_tokens for chunk in t.chat(
        SUM, stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})]
    equal(counts, sorted(counts))


@test
def the_async_client_streams_too(t):
    async def ask():
        async with t.async_client() as client:
            stream = await client.chat.completions.create(
                model=t.model, messages=[{"role": "user", "content": SUM}], temperature=0, stream=True)
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    equal(asyncio.run(ask()), t.chat(SUM).choices[0].message.content)


@test
def the_token_limit_is_kept(t):
    for field in ("max_tokens", "max_completion_tokens"):
        answer = t.chat(LONG, **{field: 5})
        equal(answer.choices[0].finish_reason, "length")
        equal(answer.usage.completion_tokens, 5)


@test
def min_tokens_holds_the_end_back(t):
    answer = t.chat(SUM, max_tokens=40, extra_body={"min_tokens": 40})
    equal(answer.usage.completion_tokens, 40)


@test
def ignore_eos_goes_on(t):
    answer = t.chat(SUM, max_tokens=64, extra_body={"ignore_eos": True})
    equal((answer.usage.completion_tokens, answer.choices[0].finish_reason), (64, "length"))


@test
def stop_strings_end_the_text(t):
    full = t.chat(LONG, max_tokens=60).choices[0].message.content
    word = full.split()[4]
    for stream in (False, True):
        for stop in (word, ["@@@@", word]):
            if stream:
                text, finishes, _ = text_of(t.chat(LONG, max_tokens=60, stop=stop, stream=True))
            else:
                answer = t.chat(LONG, max_tokens=60, stop=stop)
                text, finishes = answer.choices[0].message.content, [answer.choices[0].finish_reason]
                equal(answer.choices[0].matched_stop, word)
            equal(text, full[:full.index(word)])
            equal(finishes, ["stop"])
    kept = t.chat(LONG, max_tokens=60, stop=word, extra_body={"no_stop_trim": True})
    equal(kept.choices[0].message.content, full[:full.index(word) + len(word)])


@test
def stop_token_ids_end_the_text(t):
    tokens = t.post("/tokenize", {"prompt": "7 + 5 = 12.", "add_special_tokens": False})[1]["tokens"]
    answer = t.chat(SUM, extra_body={**THINK, "stop_token_ids": [tokens[-1]]})
    equal(answer.choices[0].matched_stop, tokens[-1])


@test
def n_gives_that_many_choices(t):
    answer = t.chat(LONG, n=4, temperature=1.0, seed=3, max_tokens=24)
    equal([c.index for c in answer.choices], [0, 1, 2, 3])
    check(len({c.message.content for c in answer.choices}) > 1, "the choices differ")
    greedy = t.chat(SUM, n=3)
    equal(len({c.message.content for c in greedy.choices}), 1, "different greedy answers")
    texts = {}
    for chunk in t.chat(LONG, n=4, temperature=1.0, seed=3, max_tokens=24, stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    equal([texts[i] for i in range(4)], [c.message.content for c in answer.choices])


@test
def a_seed_gives_the_same_answer_whatever_else_runs(t):
    def ask(seed):
        return t.chat(LONG, temperature=1.0, seed=seed, max_tokens=32).choices[0].message.content

    alone = ask(11)
    equal(ask(11), alone)
    check(len({ask(seed) for seed in range(5)}) > 1, "other seeds give other answers")

    async def crowd():
        async with t.async_client() as client:
            return await asyncio.gather(*[client.chat.completions.create(
                model=t.model, messages=[{"role": "user", "content": LONG}], temperature=1.0, seed=11 + i % 4,
                max_tokens=32) for i in range(12)])

    for i, answer in enumerate(asyncio.run(crowd())):
        if i % 4 == 0:
            equal(answer.choices[0].message.content, alone, f"answer {i} in a crowd")


@test
def logprobs_of_each_token(t):
    answer = t.chat(SUM, logprobs=True, top_logprobs=5, max_tokens=30)
    content = answer.choices[0].logprobs.content
    equal(len(content), answer.usage.completion_tokens)
    for token in content:
        check(token.logprob <= 0)
        equal(len(token.top_logprobs), 5)
        equal(token.top_logprobs[0].token, token.token, "greedy takes the likeliest")
        logprobs = [top.logprob for top in token.top_logprobs]
        equal(logprobs, sorted(logprobs, reverse=True))
    text = b"".join(bytes(token.bytes) for token in content).decode()
    check(text.startswith(answer.choices[0].message.content))
    streamed = []
    for chunk in t.chat(SUM, logprobs=True, max_tokens=30, stream=True):
        for choice in chunk.choices:
            if choice.logprobs:
                streamed += choice.logprobs.content
    equal([token.token for token in streamed], [token.token for token in content])


@test
def logit_bias_forces_and_forbids(t):
    token = t.post("/tokenize", {"prompt": "x", "add_special_tokens": False})[1]["tokens"][0]
    answer = t.chat(SUM, logit_bias={str(token): 100}, max_tokens=3, logprobs=True)
    equal({item.token for item in answer.choices[0].logprobs.content}, {"x"})


@test
def penalties_change_the_answer(t):
    plain = t.chat(LONG, max_tokens=60).choices[0].message.content
    other = t.chat(LONG, max_tokens=60, frequency_penalty=2.0, presence_penalty=2.0).choices[0].message.content
    check(plain != other, "penalties without effect")


@test
def top_k_one_is_greedy(t):
    equal(t.chat(LONG, temperature=1.0, max_tokens=30, extra_body={"top_k": 1}).choices[0].message.content,
          t.chat(LONG, max_tokens=30).choices[0].message.content)


@test
def the_prefix_cache_is_reported(t):
    question = "The heavy compass is 296. " * 20 + "What is the heavy compass?"
    t.chat(question, max_tokens=2)
    usage = t.chat(question, max_tokens=2).usage
    check(usage.prompt_tokens_details.cached_tokens > 0, usage)
    salted = t.chat(question, max_tokens=2, extra_body={"cache_salt": "someone else"}).usage
    equal(salted.prompt_tokens_details.cached_tokens, 0, "tokens shared across a salt")


@test
def the_final_message_is_continued(t):
    messages = [{"role": "user", "content": SUM}, {"role": "assistant", "content": "7 + 5 ="}]
    answer = t.client.chat.completions.create(model=t.model, messages=messages, temperature=0,
                                              extra_body={"continue_final_message": True})
    check(answer.choices[0].message.content.startswith(" "), answer.choices[0].message.content)
    messages[-1]["prefix"] = True
    again = t.client.chat.completions.create(model=t.model, messages=messages, temperature=0)
    equal(again.choices[0].message.content, answer.choices[0].message.content)


@test
def tools_reach_the_model(t):
    tool = {"type": "function", "function": {
        "name": "query_weather", "description": "Get weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "The city name"}},
                       "required": ["city"]}}}
    answer = t.chat("How is the weather in Beijing?", tools=[tool])
    calls = answer.choices[0].message.tool_calls
    equal([call.function.name for call in calls or []], ["query_weather"])
    equal(json.loads(calls[0].function.arguments), {"city": "Beijing"})
    equal(answer.choices[0].finish_reason, "tool_calls")
    without = t.chat("How is the weather in Beijing?", tools=[tool], tool_choice="none")
    check(without.usage.prompt_tokens < answer.usage.prompt_tokens)
    message = without.choices[0].message
    check(not message.tool_calls and "tool▁call" not in message.content, message)


@test
def the_hosted_apis_base_urls_work(t):
    for base in ("", "/beta"):
        client = openai.OpenAI(base_url=t.base + base, api_key=t.api_key or "none", max_retries=0, timeout=60)
        ask = dict(model=t.model, temperature=0, messages=[{"role": "user", "content": SUM}])
        answer = client.chat.completions.create(**ask).choices[0].message.content
        equal(answer, SUM_ANSWER)
        equal(text_of(client.chat.completions.create(stream=True, **ask))[0], answer)
        filled = client.completions.create(model=t.model, prompt="7 + 5 =", suffix=".", max_tokens=4, temperature=0)
        check(filled.choices[0].text)
    equal([m.id for m in openai.OpenAI(base_url=t.base, api_key=t.api_key or "none").models.list()], [t.model])


@test
def typed_special_tokens_are_tokens_when_asked_for(t):
    messages = [{"role": "system", "content": "<think>"}, {"role": "user", "content": "a<｜User｜>b"}]
    marker = t.post("/tokenize", {"prompt": "<｜User｜>", "add_special_tokens": False})[1]["tokens"][0]

    def count(**fields):
        answer = t.client.chat.completions.create(model=t.model, messages=messages, max_tokens=1, extra_body={
            "return_prompt_token_ids": True, **fields})
        tokens = answer.choices[0].prompt_token_ids
        equal(t.post("/tokenize", {"messages": messages, **fields})[1]["tokens"], tokens)
        return tokens.count(marker)
    equal((count(), count(split_special_tokens=True), count(split_special_tokens=False)), (1, 1, 2))


@test
def output_has_the_form_asked_for(t):
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}, "unit": {"enum": ["apples", "pears"]}},
              "required": ["answer", "unit"], "additionalProperties": False}
    answer = t.chat(SUM, response_format={"type": "json_schema", "json_schema": {"name": "sum", "schema": schema}})
    value = json.loads(answer.choices[0].message.content)
    equal(sorted(value), ["answer", "unit"])
    thoughtful = t.chat(SUM, extra_body={**THINK, "regex": "(yes|no)!"})
    check(thoughtful.choices[0].message.reasoning_content)
    check(thoughtful.choices[0].message.content in ("yes!", "no!"), thoughtful.choices[0].message.content)
    forced = t.chat("Hello", tool_choice={"type": "function", "function": {"name": "note"}}, tools=[
        {"type": "function", "function": {"name": n, "parameters": schema}} for n in ("other", "note")])
    call = forced.choices[0].message.tool_calls[0].function
    equal(call.name, "note")
    equal(sorted(json.loads(call.arguments)), ["answer", "unit"])


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    name: pydantic.SecretStr


class Pet(pydantic.BaseModel):
    pet: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


@test
def pydantics_discriminated_union_is_kept(t):
    for seed in range(4):
        answer = t.client.beta.chat.completions.parse(
            model=t.model, temperature=1, seed=seed, max_tokens=600, response_format=Pet,
            messages=[{"role": "user", "content": "Hello"}])
        check(isinstance(answer.choices[0].message.parsed.pet, (Cat, Dog)), answer)


@test
def a_stop_string_that_cuts_a_call_is_told_of(t):
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
    ask = {"tools": [tool], "tool_choice": "required", "stop": ["Paris"]}
    choice = t.chat("What is the weather in Paris?", **ask).choices[0]
    equal((choice.finish_reason, choice.matched_stop), ("stop", "Paris"))
    last = [chunk for chunk in t.chat("What is the weather in Paris?", stream=True, **ask) if chunk.choices][-1]
    equal((last.choices[0].finish_reason, last.choices[0].matched_stop), ("stop", "Paris"))


@test
def choice_none_without_tools_calls_nothing(t):
    for seed in range(30):
        answer = t.chat("How is the weather in Beijing?", temperature=1, seed=seed, max_tokens=40, tool_choice="none")
        check("<｜tool" not in answer.choices[0].message.content, answer)


@test
def many_chats_at_once(t):
    questions = [f"What is {i} + {i + 3}?" for i in range(16)]
    alone = [t.chat(q, max_tokens=12).choices[0].message.content for q in questions]

    async def crowd():
        async with t.async_client() as client:
            return await asyncio.gather(*[client.chat.completions.create(
                model=t.model, messages=[{"role": "user", "content": q}], temperature=0, max_tokens=12)
                for q in questions])

    equal([answer.choices[0].message.content for answer in asyncio.run(crowd())], alone)


@test
def errors_are_the_clients_exceptions(t):
    error = raises(openai.NotFoundError, t.client.chat.completions.create, model="gpt-9",
                   messages=[{"role": "user", "content": "x"}])
    equal((error.code, error.param, error.type), ("model_not_found", "model", "invalid_request_error"))
    error = raises(openai.BadRequestError, t.chat, SUM, top_p=2.0)
    equal(error.param, "top_p")
    check("got 2.0" in error.message, error.message)
    error = raises(openai.BadRequestError, t.chat, "word " * 60000)
    equal(error.code, "context_length_exceeded")
    check("is longer than the model's context length" in error.message, error.message)
    raises(openai.BadRequestError, t.chat, SUM, n=100000)
    raises(openai.BadRequestError, t.chat, SUM, response_format={"type": "json_schema"})
    raises(openai.BadRequestError, t.chat, SUM, tool_choice="required")
    raises(openai.BadRequestError, t.chat, SUM, stream=True, temperature=-1)
    raises(openai.BadRequestError, t.client.chat.completions.create, model=t.model, messages=[])
