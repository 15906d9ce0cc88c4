"""The server through litellm: as a DeepSeek endpoint, as an OpenAI one, as an Anthropic one."""
import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would be fetched
import litellm  # noqa: E402

litellm.suppress_debug_info = True

from runner import check, equal, raises, test  # noqa: E402

SUM, SUM_ANSWER = "What is 7 + 5?", "7 + 5 = 12."
CITIES = "How is the weather in Beijing? How is the weather in Paris?"
CALLS = [("query_weather", {"city": "Beijing"}), ("query_weather", {"city": "Paris"})]
WEATHER = {"type": "function", "function": {
    "name": "query_weather", "description": "Get weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "The city name"}},
                   "required": ["city"]}}}
SCHEMA = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"],
          "additionalProperties": False}


def ask(t, content, provider="deepseek", **fields):
    base = t.base if provider == "anthropic" else t.base + "/v1"
    messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
    return litellm.completion(**{"model": f"{provider}/default", "api_base": base, "api_key": t.api_key or "none",
                                 "messages": messages, "temperature": 0, "max_tokens": 256, "num_retries": 0, **fields})


def calls_of(message):
    return [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or []]


@test
def chat(t):
    for provider in ("deepseek", "openai", "anthropic"):
        answer = ask(t, SUM, provider)
        check(answer.choices[0].message.content.endswith(SUM_ANSWER), (provider, answer))
        equal(answer.choices[0].finish_reason, "stop", provider)
        check(answer.usage.completion_tokens > 0, answer.usage)


@test
def streaming(t):
    for provider in ("deepseek", "openai", "anthropic"):
        chunks = list(ask(t, SUM, provider, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        check(text.endswith(SUM_ANSWER), (provider, text))


@test
def parallel_tools(t):
    for provider in ("deepseek", "openai", "anthropic"):
        answer = ask(t, CITIES, provider, tools=[WEATHER])
        equal(calls_of(answer.choices[0].message), CALLS, provider)
        equal(answer.choices[0].finish_reason, "tool_calls", provider)
        chunks = list(ask(t, CITIES, provider, tools=[WEATHER], stream=True))
        whole = litellm.stream_chunk_builder(chunks)
        equal(calls_of(whole.choices[0].message), CALLS, provider)


@test
def tools_are_answered(t):
    for provider in ("deepseek", "anthropic"):
        question = [{"role": "user", "content": "How is the weather in Beijing?"}]
        message = ask(t, question, provider, tools=[WEATHER]).choices[0].message
        output = {"weather": "sunny", "temperature": 21}
        answer = ask(t, [*question, message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}),
                         {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": json.dumps(output)}],
                     provider, tools=[WEATHER])
        check("21" in answer.choices[0].message.content, (provider, answer))


@test
def reasoning(t):
    message = ask(t, SUM, thinking={"type": "enabled"}).choices[0].message
    check(message.reasoning_content and message.content.endswith(SUM_ANSWER), message)
    chunks = list(ask(t, SUM, stream=True, thinking={"type": "enabled"}))
    whole = litellm.stream_chunk_builder(chunks).choices[0].message
    equal((whole.reasoning_content, whole.content), (message.reasoning_content, message.content))


@test
def json_schema(t):
    form = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA, "strict": True}}
    answer = ask(t, SUM, "openai", response_format=form)
    equal(list(json.loads(answer.choices[0].message.content)), ["answer"])


@test
def responses(t):
    fields = dict(model="openai/default", api_base=t.base + "/v1", api_key=t.api_key or "none", input=SUM, temperature=0)
    answer = litellm.responses(**fields)
    text = answer.output[-1].content[0].text
    check(text.endswith(SUM_ANSWER), answer)
    events = [event.type for event in litellm.responses(stream=True, **fields)]
    equal(str(getattr(events[-1], "value", events[-1])), "response.completed")


@test
def errors(t):
    raises(litellm.BadRequestError, ask, t, SUM, top_p=2)
    raises(litellm.NotFoundError, ask, t, SUM, model="deepseek/gpt-9")
