"""The server through langchain-deepseek."""
import json

from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_deepseek import ChatDeepSeek

from runner import check, equal, raises, test

SUM, SUM_ANSWER = "What is 7 + 5?", "7 + 5 = 12."
CITIES = "How is the weather in Beijing? How is the weather in Paris?"
CALLS = [("query_weather", {"city": "Beijing"}), ("query_weather", {"city": "Paris"})]


@tool
def query_weather(city: str) -> str:
    """Get weather of a city"""
    return json.dumps({"weather": "sunny", "temperature": 21})


def model(t, **fields):
    return ChatDeepSeek(**{"model": "default", "api_base": t.base + "/v1", "api_key": t.api_key or "none",
                           "temperature": 0, "max_tokens": 256, "max_retries": 0, "timeout": 60, **fields})


def thinking(t):
    return model(t, extra_body={"thinking": {"type": "enabled"}})


def joined(chunks):
    whole = None
    for chunk in chunks:
        whole = chunk if whole is None else whole + chunk
    check(isinstance(whole, AIMessageChunk), whole)
    return whole


def calls_of(message):
    return [(call["name"], call["args"]) for call in message.tool_calls]


@test
def chat(t):
    answer = model(t).invoke(SUM)
    check(answer.content.endswith(SUM_ANSWER), answer)
    equal(answer.response_metadata["finish_reason"], "stop")
    check(answer.usage_metadata["output_tokens"] > 0, answer)


@test
def streaming(t):
    chunks = list(model(t).stream(SUM))
    check(len(chunks) > 5, chunks)
    equal(joined(chunks).content, model(t).invoke(SUM).content)


@test
def reasoning(t):
    answer = thinking(t).invoke(SUM)
    check(answer.additional_kwargs["reasoning_content"] and answer.content.endswith(SUM_ANSWER), answer)
    whole = joined(thinking(t).stream(SUM))
    equal((whole.additional_kwargs["reasoning_content"], whole.content),
          (answer.additional_kwargs["reasoning_content"], answer.content))


@test
def parallel_tools(t):
    bound = model(t).bind_tools([query_weather])
    equal(calls_of(bound.invoke(CITIES)), CALLS)
    equal(calls_of(joined(bound.stream(CITIES))), CALLS)
    forced = model(t).bind_tools([query_weather], tool_choice="query_weather").invoke("Hello")
    equal({name for name, _ in calls_of(forced)}, {"query_weather"})


@test
def tools_are_answered(t):
    bound = model(t).bind_tools([query_weather])
    messages = [HumanMessage("How is the weather in Beijing?")]
    messages.append(bound.invoke(messages))
    messages += [query_weather.invoke(call) for call in messages[-1].tool_calls]
    check(isinstance(messages[-1], ToolMessage), messages)
    answer = bound.invoke(messages)
    check("21 degrees" in answer.content and not answer.tool_calls, answer)


@test
def json_schema(t):
    schema = {"title": "Sum", "type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"],
              "additionalProperties": False}
    for method in ("json_schema", "function_calling"):
        answer = model(t).with_structured_output(schema, method=method).invoke(SUM)
        equal(list(answer), ["answer"], method)


@test
def errors(t):
    raises(Exception, model(t, top_p=2.0).invoke, SUM)
    error = raises(Exception, model(t, model="gpt-9").invoke, SUM)
    check("does not exist" in str(error), error)
