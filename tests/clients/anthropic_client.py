"""/v1/messages through the official anthropic client."""
import asyncio
import json

import anthropic
import pydantic

from runner import check, equal, raises, test

SUM, SUM_ANSWER = "What is 7 + 5?", "7 + 5 = 12."
LONG = "Tell me a story about a fox named Mia."
THINK = {"type": "adaptive"}
WEATHER = {"name": "query_weather", "description": "Get weather of a city",
           "input_schema": {"type": "object", "properties": {"city": {"type": "string", "description": "The city name"}},
                            "required": ["city"]}}
GREEDY = {"temperature": 0}


def ask(t, content, **fields):
    fields = {"model": t.model, "max_tokens": 256, "extra_body": GREEDY, **fields}
    return t.anthropic.messages.create(messages=[{"role": "user", "content": content}], **fields)


def streamed(t, content, **fields):
    """(the final message, the raw events' types) of a stream."""
    fields = {"model": t.model, "max_tokens": 256, "extra_body": GREEDY, **fields}
    with t.anthropic.messages.stream(messages=[{"role": "user", "content": content}], **fields) as stream:
        types = [event.type for event in stream]
        return stream.get_final_message(), types


def plain(message):
    """What a message says, without its ids."""
    return [{k: v for k, v in block.to_dict().items() if k not in ("id", "signature")} for block in message.content]


@test
def an_answer_has_its_shape(t):
    answer = ask(t, SUM)
    equal((answer.type, answer.role, answer.model), ("message", "assistant", t.model))
    equal([block.type for block in answer.content], ["text"])
    check(answer.content[0].text.endswith(SUM_ANSWER), answer.content)
    equal((answer.stop_reason, answer.stop_sequence), ("end_turn", None))
    equal(answer._request_id, answer.id)
    raw = t.post("/v1/messages", {"model": t.model, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]})
    pydantic.TypeAdapter(anthropic.types.Message).validate_python(raw[1], strict=True)


@test
def it_says_what_chat_says(t):
    for question in (SUM, LONG):
        chat = t.chat(question, max_tokens=80).choices[0].message.content
        equal(ask(t, question, max_tokens=80).content[0].text, chat)


@test
def a_stream_is_the_answer_in_pieces(t):
    whole = ask(t, LONG, max_tokens=80)
    final, types = streamed(t, LONG, max_tokens=80)
    equal(plain(final), plain(whole))
    equal((final.stop_reason, final.usage.output_tokens), (whole.stop_reason, whole.usage.output_tokens))
    check(types.count("text") > 10, "the text comes token by token")
    equal((types[0], types[-1]), ("message_start", "message_stop"))


@test
def the_raw_stream_has_every_event(t):
    events = list(ask(t, SUM, stream=True, thinking=THINK))
    for event in events:
        pydantic.TypeAdapter(anthropic.types.RawMessageStreamEvent).validate_python(event.to_dict())
    types = [event.type for event in events if event.type != "content_block_delta"]
    block = ["content_block_start", "content_block_stop"]
    equal(types, ["message_start", *block, *block, "message_delta", "message_stop"])
    deltas = {event.delta.type for event in events if event.type == "content_block_delta"}
    equal(deltas, {"thinking_delta", "signature_delta", "text_delta"})


@test
def thinking_comes_in_a_block_of_its_own(t):
    answer = ask(t, SUM, thinking=THINK)
    equal([block.type for block in answer.content], ["thinking", "text"])
    check(answer.content[0].thinking and answer.content[0].signature, answer.content[0])
    check(answer.content[1].text.endswith(SUM_ANSWER), answer.content)
    check(answer.usage.output_tokens_details.thinking_tokens > 0, answer.usage)
    final, _ = streamed(t, SUM, thinking=THINK)
    equal(plain(final), plain(answer))
    equal([block.type for block in ask(t, SUM, thinking={"type": "disabled"}).content], ["text"])
    omitted = ask(t, SUM, thinking={"type": "adaptive", "display": "omitted"})
    equal((omitted.content[0].thinking, omitted.content[1].text), ("", answer.content[1].text))
    # What was thought may come back.
    again = t.anthropic.messages.create(model=t.model, max_tokens=64, messages=[
        {"role": "user", "content": SUM}, answer.to_param(), {"role": "user", "content": "What is 1 + 2?"}])
    check(again.content, again)


@test
def tools_are_called_and_answered(t):
    question = "How is the weather in Beijing?"
    for answer in (ask(t, question, tools=[WEATHER]), streamed(t, question, tools=[WEATHER])[0]):
        calls = [block for block in answer.content if block.type == "tool_use"]
        equal([(call.name, call.input) for call in calls], [("query_weather", {"city": "Beijing"})])
        equal(answer.stop_reason, "tool_use")
        output = {"weather": "sunny", "temperature": 21}
        final = t.anthropic.messages.create(model=t.model, max_tokens=64, tools=[WEATHER], extra_body=GREEDY, messages=[
            {"role": "user", "content": question}, answer.to_param(),
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": calls[0].id,
                                          "content": [{"type": "text", "text": json.dumps(output)}]}]}])
        equal([block.type for block in final.content], ["text"])
        check("21" in final.content[0].text, final.content[0].text)
        check(final.usage.cache_read_input_tokens > 0, "the call's turn is in the prefix cache")


@test
def several_calls_at_once(t):
    question = "How is the weather in Beijing? How is the weather in Paris?"
    expected = [("query_weather", {"city": "Beijing"}), ("query_weather", {"city": "Paris"})]
    for answer in (ask(t, question, tools=[WEATHER]), streamed(t, question, tools=[WEATHER])[0]):
        equal([(block.name, block.input) for block in answer.content], expected)
    one = ask(t, question, tools=[WEATHER], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    equal([(block.name, block.input) for block in one.content], expected[:1])


@test
def tool_choice_is_kept(t):
    other = {**WEATHER, "name": "note"}
    forced = ask(t, "Hello", tools=[other, WEATHER], tool_choice={"type": "tool", "name": "note"})
    equal([block.name for block in forced.content if block.type == "tool_use"], ["note"])
    either = ask(t, "Hello", tools=[other, WEATHER], tool_choice={"type": "any"})
    equal(either.stop_reason, "tool_use")
    none = ask(t, "How is the weather in Beijing?", tools=[WEATHER], tool_choice={"type": "none"})
    equal(none.stop_reason, "end_turn")


@test
def limits_and_stops(t):
    cut = ask(t, LONG, max_tokens=5)
    equal((cut.stop_reason, cut.usage.output_tokens), ("max_tokens", 5))
    full = ask(t, LONG, max_tokens=60).content[0].text
    word = full.split()[4]
    stopped = ask(t, LONG, max_tokens=60, stop_sequences=["@@@@", word])
    equal((stopped.stop_reason, stopped.stop_sequence), ("stop_sequence", word))
    equal(stopped.content[0].text, full[:full.index(word)])
    warm = ask(t, LONG, max_tokens=0)
    equal((warm.content, warm.usage.output_tokens), ([], 0), "a prompt that is only cached")
    # Past the context a limit is cut, and the answer ends by itself.
    equal(ask(t, SUM, max_tokens=1000000, timeout=60).stop_reason, "end_turn")


@test
def output_has_the_form_asked_for(t):
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"],
              "additionalProperties": False}
    answer = ask(t, SUM, output_config={"format": {"type": "json_schema", "schema": schema}})
    equal(list(json.loads(answer.content[0].text)), ["answer"])


@test
def the_assistants_last_message_is_continued(t):
    answer = t.anthropic.messages.create(model=t.model, max_tokens=20, extra_body=GREEDY, messages=[
        {"role": "user", "content": SUM}, {"role": "assistant", "content": "7 + 5 ="}])
    check(answer.content[0].text.startswith(" "), answer.content[0].text)


@test
def tokens_are_counted(t):
    fields = {"system": "You answer.", "tools": [WEATHER], "messages": [{"role": "user", "content": SUM}]}
    count = t.anthropic.messages.count_tokens(model=t.model, **fields).input_tokens
    usage = t.anthropic.messages.create(model=t.model, max_tokens=1, **fields).usage
    equal(usage.input_tokens + usage.cache_read_input_tokens, count)


@test
def the_prefix_cache_is_reported(t):
    question = "The tall compass is 297. " * 20 + "What is the tall compass?"
    ask(t, question, max_tokens=2)
    usage = ask(t, question, max_tokens=2).usage
    check(usage.cache_read_input_tokens > usage.input_tokens, usage)


@test
def the_async_client_streams_too(t):
    async def talk():
        async with anthropic.AsyncAnthropic(base_url=t.base, api_key=t.api_key or "none", max_retries=0) as client:
            async with client.messages.stream(model=t.model, max_tokens=64, extra_body=GREEDY,
                                              messages=[{"role": "user", "content": SUM}]) as stream:
                return "".join([text async for text in stream.text_stream])

    equal(asyncio.run(talk()), ask(t, SUM).content[0].text)


@test
def errors_are_the_clients_exceptions(t):
    error = raises(anthropic.NotFoundError, ask, t, SUM, model="claude-9")
    equal(error.body["error"]["type"], "not_found_error")
    error = raises(anthropic.BadRequestError, ask, t, SUM, tools=[{"type": "web_search_20250305", "name": "web_search"}])
    check("web_search_20250305" in error.message, error.message)
    raises(anthropic.BadRequestError, ask, t, [{"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}])
    raises(anthropic.BadRequestError, ask, t, SUM, stream=True, extra_body={"top_p": 2})
    raises(anthropic.BadRequestError, ask, t, "word " * 60000)
    if t.api_key:
        stranger = anthropic.Anthropic(base_url=t.base, api_key="x", max_retries=0, timeout=60)
        error = raises(anthropic.AuthenticationError, stranger.messages.create, model=t.model, max_tokens=1,
                       messages=[{"role": "user", "content": "x"}])
        equal(error.body["error"]["type"], "authentication_error")
