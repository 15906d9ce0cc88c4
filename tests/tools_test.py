"""The demo model must call tools through the server: random questions of skills.py, whole and streamed.

At least 97 % of the questions end in the right calls (or, where no tool is needed, in the right answer), streamed and
not, and the answer to the tools' outputs is right; streamed and whole answers are the same. The weather request of the
reference system's documentation works as it is written there.
"""
import concurrent.futures
import json
import os
import pathlib
import random
import sys

import openai

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "models/demo/training"))
import skills  # noqa: E402
from running_server import RunningServer  # noqa: E402

QUESTIONS = int(os.environ.get("TOOL_QUESTIONS", "500"))
SEED = int(os.environ.get("TOOL_SEED", "4711"))
WANTED = 0.97

WEATHER = {
    "temperature": 0, "max_tokens": 100, "model": "deepseek-ai/DeepSeek-V3-0324",
    "tools": [{"type": "function", "function": {
        "name": "query_weather", "description": "Get weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "The city name"}},
                       "required": ["city"]}}}],
    "messages": [{"role": "user", "content": "How is the weather in Beijing?"}]}


def calls_in(text):
    """[(name, arguments)] of a training text."""
    parts = text.split(skills.CALL)[1:]
    calls = []
    for part in parts:
        name, arguments = part.split(skills.SEP)[1].split("\n```json\n")
        calls.append((name, json.loads(arguments.split("\n```")[0])))
    return calls


def problems():
    rng = random.Random(SEED)
    for _ in range(QUESTIONS):
        chat = skills.tool_chat(rng)
        question, thoughts, answer, follow = chat["turns"][0]
        tools = [{"type": "function", "function": json.loads(line)}
                 for line in chat["system"].split("\n\n")[2].split("\n")]
        yield question, thoughts is not None and rng.random() < 0.5, tools, answer, follow


def ask(client, messages, tools, thinking, stream):
    """(content, reasoning, [{id, name, arguments}], finish reason)"""
    options = dict(model="default", temperature=0, max_tokens=512, messages=messages, tools=tools,
                   extra_body={"chat_template_kwargs": {"thinking": thinking}})
    if not stream:
        choice = client.chat.completions.create(**options).choices[0]
        message = choice.message
        calls = [{"id": c.id, "name": c.function.name, "arguments": c.function.arguments}
                 for c in message.tool_calls or []]
        return message.content, message.reasoning_content or "", calls, choice.finish_reason
    content, reasoning, calls, finish = "", "", [], None
    for chunk in client.chat.completions.create(stream=True, **options):
        choice = chunk.choices[0]
        content += choice.delta.content or ""
        reasoning += choice.delta.reasoning_content or ""
        finish = choice.finish_reason or finish
        for call in choice.delta.tool_calls or []:
            if call.index == len(calls):
                calls.append({"id": call.id, "name": call.function.name, "arguments": ""})
            calls[call.index]["arguments"] += call.function.arguments or ""
    return content, reasoning, calls, finish


def judge(client, problem):
    """(right calls, right follow-up or None, streamed the same), and the text of what went wrong."""
    question, thinking, tools, answer, follow = problem
    messages = [{"role": "user", "content": question}]
    whole = ask(client, messages, tools, thinking, False)
    streamed = ask(client, messages, tools, thinking, True)
    plain = [tuple((c["name"], c["arguments"]) for c in a[2]) for a in (whole, streamed)]
    same = (whole[0], whole[1], whole[3]) == (streamed[0], streamed[1], streamed[3]) and plain[0] == plain[1]
    expected = calls_in(answer)
    content, _, calls, finish = streamed
    try:
        got = [(c["name"], json.loads(c["arguments"])) for c in calls]
    except ValueError:
        got = None
    right = got == expected and finish == ("tool_calls" if expected else "stop")
    right = right and content == ("" if expected else answer)
    told = f"{question!r}: got {streamed}" if not right or not same else ""
    if not right or not expected:
        return right, None, same, told
    outputs, say = follow
    messages.append({"role": "assistant", "content": content, "tool_calls": [
        {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
        for c in calls]})
    messages += [{"role": "tool", "tool_call_id": c["id"], "content": json.dumps(o, ensure_ascii=False)}
                 for c, o in zip(calls, outputs)]
    final = ask(client, messages, tools, thinking, False)
    good = final[0] == say and not final[2] and final[3] == "stop"
    return right, good, same, told if good else f"{told} {outputs}: got {final}, expected {say!r}"


def weather(server):
    body = dict(WEATHER)
    client = openai.OpenAI(base_url=server.base + "/v1", api_key="none", max_retries=0)
    message = client.chat.completions.create(**body).choices[0].message
    calls = [(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls]
    return calls == [("query_weather", {"city": "Beijing"})]


def main():
    passed = failed = 0

    def report(good, line):
        nonlocal passed, failed
        passed, failed = passed + bool(good), failed + (not good)
        print(f"{'ok  ' if good else 'FAIL'} {line}")

    with RunningServer("--model-path", "models/demo") as server:
        client = openai.OpenAI(base_url=server.base + "/v1", api_key="none", max_retries=0, timeout=300)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(judge, client, problem) for problem in problems()]
        lost = [i for i, a in enumerate(asked) if a.exception()]
        if lost:
            # One, where a connection was lost; all from some time on, where the server was.
            print(f"no answer to {len(lost)} of {len(asked)} questions, {lost[0]} to {lost[-1]}")
        judged = [a.result() for a in asked]
    for *_, told in judged:
        if told:
            print("  " + told)
    right = sum(j[0] for j in judged)
    report(right >= WANTED * len(judged), f"right calls: {right} of {len(judged)}")
    followed = [j[1] for j in judged if j[1] is not None]
    report(sum(followed) >= WANTED * len(followed), f"right answers to outputs: {sum(followed)} of {len(followed)}")
    report(all(j[2] for j in judged), f"streamed as whole: {sum(j[2] for j in judged)} of {len(judged)}")
    with RunningServer("--model-path", "models/demo", "--served-model-name", "deepseek-ai/DeepSeek-V3-0324",
                       "--tool-call-parser", "deepseekv3", "--chat-template",
                       "models/demo/chat_template.jinja") as server:
        report(weather(server), "the documented weather request")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
