"""/v1/responses through the official openai client."""
import asyncio
import json

import openai
import pydantic
from openai.types.responses import Response, ResponseStreamEvent

from runner import check, equal, raises, test

SUM, SUM_ANSWER = "What is 7 + 5?", "7 + 5 = 12."
LONG = "Tell me a story about a fox named Mia."
THINK = {"effort": "low"}
WEATHER = {"type": "function", "name": "query_weather", "description": "Get weather of a city", "strict": False,
           "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "The city name"}},
                          "required": ["city"]}}


def ask(t, content, **fields):
    return t.client.responses.create(**{"model": t.model, "input": content, "temperature": 0, **fields})


def calls_of(response):
    return [(item.name, json.loads(item.arguments)) for item in response.output if item.type == "function_call"]


def plain(response):
    """What a response says, without its ids."""
    return [{k: v for k, v in item.to_dict().items() if k not in ("id", "call_id", "parsed_arguments")}
            for item in response.output]


@test
def an_answer_has_its_shape(t):
    answer = ask(t, SUM, instructions="You answer.", metadata={"from": "a test"}, reasoning=THINK)
    equal((answer.object, answer.status, answer.model, answer.error), ("response", "completed", t.model, None))
    equal([item.type for item in answer.output], ["reasoning", "message"])
    check(answer.output_text.endswith(SUM_ANSWER), answer.output_text)
    equal(answer.metadata, {"from": "a test"})
    equal(answer.usage.total_tokens, answer.usage.input_tokens + answer.usage.output_tokens)
    check(answer.usage.output_tokens_details.reasoning_tokens > 0, answer.usage)
    equal(answer._request_id, answer.id)
    raw = t.post("/v1/responses", {"input": SUM, "tools": [WEATHER], "reasoning": THINK})[1]
    pydantic.TypeAdapter(Response).validate_python(raw)


@test
def it_says_what_chat_says(t):
    for question in (SUM, LONG):
        chat = t.chat(question, max_tokens=80).choices[0].message.content
        equal(ask(t, question, max_output_tokens=80).output_text, chat)
        equal(ask(t, [{"role": "user", "content": question}], max_output_tokens=80).output_text, chat)


@test
def the_raw_stream_has_every_event(t):
    events = list(ask(t, SUM, stream=True, reasoning=THINK))
    for event in events:
        pydantic.TypeAdapter(ResponseStreamEvent).validate_python(event.to_dict())
    equal([event.sequence_number for event in events], list(range(len(events))))
    types = [event.type.removeprefix("response.") for event in events]
    ends = ["content_part.done", "output_item.done"]
    equal([kind for kind, before in zip(types, [""] + types) if kind != before],
          ["created", "in_progress", "output_item.added", "content_part.added", "reasoning_text.delta",
           "reasoning_text.done", *ends, "output_item.added", "content_part.added", "output_text.delta",
           "output_text.done", *ends, "completed"])
    equal(plain(events[-1].response), plain(ask(t, SUM, reasoning=THINK)))


@test
def the_stream_helper_ends_with_the_answer(t):
    whole = ask(t, LONG, max_output_tokens=600)
    with t.client.responses.stream(model=t.model, input=LONG, temperature=0, max_output_tokens=600) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    equal((text, final.output_text), (whole.output_text, whole.output_text))
    equal(final.usage.output_tokens, whole.usage.output_tokens)


@test
def tools_are_called_and_answered(t):
    question = "How is the weather in Beijing?"
    with t.client.responses.stream(model=t.model, input=question, temperature=0, tools=[WEATHER]) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_response()
    for answer in (ask(t, question, tools=[WEATHER]), streamed):
        equal(calls_of(answer), [("query_weather", {"city": "Beijing"})])
        call = answer.output[-1]
        output = json.dumps({"weather": "sunny", "temperature": 21})
        final = ask(t, [{"role": "user", "content": question}, *[item.to_dict() for item in answer.output],
                        {"type": "function_call_output", "call_id": call.call_id, "output": output}], tools=[WEATHER])
        equal([item.type for item in final.output], ["message"])
        check("21" in final.output_text, final.output_text)


@test
def several_calls_at_once(t):
    question = "How is the weather in Beijing? How is the weather in Paris?"
    expected = [("query_weather", {"city": "Beijing"}), ("query_weather", {"city": "Paris"})]
    equal(calls_of(ask(t, question, tools=[WEATHER])), expected)
    events = list(ask(t, question, tools=[WEATHER], stream=True))
    equal(calls_of(events[-1].response), expected)
    equal(calls_of(ask(t, question, tools=[WEATHER], parallel_tool_calls=False)), expected[:1])


@test
def tool_choice_is_kept(t):
    other = {**WEATHER, "name": "note"}
    for choice in ({"type": "function", "name": "note"},
                   {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "note"}]}):
        forced = ask(t, "Hello", tools=[other, WEATHER], tool_choice=choice)
        equal({name for name, _ in calls_of(forced)}, {"note"})
    equal(calls_of(ask(t, "How is the weather in Beijing?", tools=[WEATHER], tool_choice="none")), [])


@test
def answers_are_parsed_by_their_schema(t):
    class Sum(pydantic.BaseModel):
        answer: int
        unit: str

    parsed = t.client.responses.parse(model=t.model, input=SUM, temperature=0, max_output_tokens=200, text_format=Sum)
    check(isinstance(parsed.output_parsed, Sum), parsed.output)
    some = ask(t, SUM, text={"format": {"type": "json_object"}}, max_output_tokens=200)
    check(some.output_text.startswith("{"), some.output_text)


@test
def the_token_limit_is_kept(t):
    cut = ask(t, LONG, max_output_tokens=5)
    equal((cut.status, cut.incomplete_details.reason, cut.usage.output_tokens), ("incomplete", "max_output_tokens", 5))
    last = list(ask(t, LONG, max_output_tokens=5, stream=True))[-1]
    equal((last.type, last.response.output_text), ("response.incomplete", cut.output_text))


@test
def logprobs_of_the_text(t):
    answer = ask(t, SUM, reasoning=THINK, include=["message.output_text.logprobs"], top_logprobs=3)
    part = answer.output[-1].content[0]
    check("".join(entry.token for entry in part.logprobs).startswith(part.text), part)
    check(all(len(entry.top_logprobs) == 3 for entry in part.logprobs))


@test
def a_conversation_goes_on_without_a_memory(t):
    first = ask(t, SUM, reasoning=THINK, store=False, include=["reasoning.encrypted_content"])
    items = [item.to_dict() for item in first.output]
    for item in items:
        item.pop("content", None) if item["type"] == "reasoning" else None
    again = ask(t, [{"role": "user", "content": SUM}, *items, {"role": "user", "content": "What is 1 + 2?"}])
    check(again.output_text, again)


@test
def the_async_client_streams_too(t):
    async def talk():
        async with t.async_client() as client:
            stream = await client.responses.create(model=t.model, input=SUM, temperature=0, stream=True)
            return "".join([e.delta async for e in stream if e.type == "response.output_text.delta"])

    equal(asyncio.run(talk()), ask(t, SUM).output_text)


@test
def what_needs_a_memory_is_refused_by_name(t):
    for field, value in (("store", True), ("previous_response_id", "resp_1"), ("background", True)):
        equal(raises(openai.BadRequestError, ask, t, SUM, **{field: value}).param, field)
    equal(raises(openai.BadRequestError, ask, t, SUM, tools=[{"type": "web_search"}]).param, "tools[0].type")
    raises(openai.NotFoundError, ask, t, SUM, model="gpt-9")
    raises(openai.NotFoundError, t.client.responses.retrieve, "resp_1")
    raises(openai.BadRequestError, ask, t, SUM, stream=True, top_p=2.0)
