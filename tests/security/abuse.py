"""Checklist lines 1, 2, 3, 5, 13, 14, 15: what clients send, how slowly, and how they leave."""
import json
import random
import socket
import threading
import time

from runner import check, equal, test, until
from server import CHAT, HELLO, STORY, answer_of, metric, resident_bytes, serving

KEY_LINE = "Content-Type: application/json\r\n"


def mutated(rng, data):
    """`data` after a few random changes."""
    data = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        kind, at = rng.randrange(5), rng.randrange(len(data) + 1)
        if kind == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 1:
            del data[at:at + rng.randrange(1, 9)]
        elif kind == 2:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        elif kind == 3:
            data[at:at] = rng.choice((b"[" * 100, b"\r\n", b"null", b"1e400", b'"', b"\\ud800", b"\xff\xfe", b"-1"))
        else:
            data[at:at] = data[at:at + 40]
    return bytes(data)


@test
def line_01_random_requests(_):
    rng = random.Random(20261126)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {
        "a": {"type": "integer", "minimum": 3}, "b": {"enum": ["x", None]}}}}}]
    bodies = [
        (CHAT, {"messages": HELLO, "max_tokens": 2}),
        (CHAT, {"messages": HELLO, "max_tokens": 2, "stream": True, "tools": tools, "tool_choice": "auto"}),
        (CHAT, {"messages": HELLO + [{"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "1"}], "tools": tools, "max_tokens": 2}),
        (CHAT, {"messages": HELLO, "max_tokens": 4, "response_format": {"type": "json_schema", "json_schema": {
            "name": "n", "schema": tools[0]["function"]["parameters"]}}}),
        ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 2, "logprobs": 2, "regex": "(a|b)*c{2,3}"}),
        ("/generate", {"input_ids": [5, 6], "sampling_params": {"max_new_tokens": 2, "logit_bias": {"7": 1}}}),
        ("/parse_function_call", {"text": "x", "tools": tools, "tool_call_parser": "deepseekv3"}),
        ("/abort_request", {"rid": "none"}),
    ]
    sent = answered = 0
    bystander = []  # what a good request is answered all the while
    with serving() as t:
        expected = t.chat("What is 7 + 5?").choices[0].message.content
        end = time.monotonic() + 8

        def ask():
            while time.monotonic() < end:
                try:
                    bystander.append(t.chat("What is 7 + 5?").choices[0].message.content)
                except Exception as failure:
                    bystander.append(failure)
        asking = threading.Thread(target=ask)
        asking.start()
        while time.monotonic() < end:
            path, body = rng.choice(bodies)
            text = json.dumps(body).encode()
            if rng.random() < 0.7:
                text = mutated(rng, text)
            data = (f"POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{KEY_LINE}"
                    f"Content-Length: {len(text)}\r\n\r\n").encode() + text
            if rng.random() < 0.3:
                data = mutated(rng, data)
            connection = t.raw(data)
            connection.shutdown(socket.SHUT_WR)
            answer = answer_of(connection, 10)
            connection.close()
            sent += 1
            # What is not even a line may be closed without a word.
            if answer:
                answered += 1
                check(answer.startswith(b"HTTP/1.1 "), f"{data!r}: {answer[:200]!r}")
                check(not answer.startswith(b"HTTP/1.1 500"), f"{data!r}: {answer[:500]!r}")
        asking.join()
        equal(set(bystander), {expected}, "another client's answers")
        check(until(lambda: t.busy() == 0), t.load())
        equal(t.request("GET", "/health_generate")[0], 200)
        equal(metric(t, "fathom:pages_leaked"), 0)
    print(f"     {sent} random requests, {answered} answered, beside {len(bystander)} good ones", flush=True)
    check(answered > 100)


@test
def line_02_slow_heads_and_bodies(_):
    with serving("--header-timeout", "1", "--body-timeout", "1", "--idle-timeout", "2") as t:
        for part in (b"POST ", b"POST / HTTP/1.1\r\nHost: x\r\nX-", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"):
            start = time.monotonic()
            answer = answer_of(t.raw(part), 6)
            check(b" 408 " in answer, f"{part!r}: {answer!r}")
            check(time.monotonic() - start < 5, "the answer comes in time")
        start = time.monotonic()
        equal(answer_of(t.raw(b""), 6), b"")
        check(time.monotonic() - start < 5, "a connection that says nothing is closed")


@test
def line_02_a_slow_reader_is_bounded_and_holds_nobody_up(_):
    # More than the kernel's buffers hold, and soon computed.
    heavy = {"prompt": ["word " * 3500] * 2, "max_tokens": 0, "echo": True, "logprobs": 20}
    with serving("--write-timeout", "3") as t:
        before = resident_bytes(t)
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((t.host, t.port))
        text = json.dumps(heavy).encode()
        connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: t\r\n{KEY_LINE}Content-Length: {len(text)}\r\n\r\n"
                           .encode() + text)
        check(until(lambda: t.busy() > 0), "it runs")
        check(until(lambda: t.busy() == 0, 120), "it is computed")
        slowest = 0.0
        for _ in range(10):
            start = time.monotonic()
            t.chat("What is 7 + 5?", max_tokens=8)
            slowest = max(slowest, time.monotonic() - start)
        check(slowest < 5, f"another request took {slowest:.1f} s")
        check(until(lambda: metric(t, "fathom:http_timeouts_total") == 1, 60), "the reader is given up")
        check(until(lambda: t.busy() == 0 and t.load()["num_used_tokens"] == 0), t.load())
        grown = resident_bytes(t) - before
        print(f"     slowest other request {slowest:.2f} s; memory grew by {grown / 2**20:.1f} MiB", flush=True)
        check(grown < 256 << 20, f"memory grew by {grown} bytes")
        connection.close()


def disconnect_after(t, body, seen):
    """Sends a streamed request, waits until `seen()` is true of what came, and goes."""
    connection = t.raw_post(CHAT, {**body, "stream": True})
    connection.settimeout(0.05)
    data, end = b"", time.monotonic() + 20
    while not seen(data):
        check(time.monotonic() < end, f"waits in vain: {data[-300:]!r}")
        try:
            part = connection.recv(65536)
            check(part, f"the stream ended: {data[-300:]!r}")
            data += part
        except TimeoutError:
            pass
    connection.close()


@test
def line_03_a_disconnect_at_every_stage_frees_the_pages(_):
    endless = {"messages": STORY, "max_tokens": 3000, "ignore_eos": True}
    long_prompt = {"messages": [{"role": "user", "content": "word " * 3500}], "max_tokens": 5}
    weather = {"messages": [{"role": "user", "content": "How is the weather in Beijing?"}], "temperature": 0, "tools": [
        {"type": "function", "function": {"name": "query_weather", "description": "Get weather of a city", "parameters": {
            "type": "object", "properties": {"city": {"type": "string", "description": "The city name"}},
            "required": ["city"]}}}], "max_tokens": 3000, "ignore_eos": True}
    with serving("--max-running-requests", "1", "--chunked-prefill-size", "16") as t:
        def free():
            start = time.monotonic()
            check(until(lambda: t.busy() == 0 and t.load()["num_used_tokens"] == 0, 10), t.load())
            return time.monotonic() - start

        def stages():
            return {s: metric(t, "fathom:disconnects_total", stage=s) for s in ("queued", "prefill", "decode", "tool_call")}

        disconnect_after(t, endless, lambda data: data.count(b"data: ") > 4)
        took = [free()]
        equal(stages(), {"queued": 0, "prefill": 0, "decode": 1, "tool_call": 0})
        disconnect_after(t, long_prompt, lambda _: t.load()["num_used_tokens"] > 0)
        took.append(free())
        equal(stages(), {"queued": 0, "prefill": 1, "decode": 1, "tool_call": 0})
        running = t.raw_post(CHAT, endless)
        check(until(lambda: t.load()["num_running_reqs"] == 1), "the first runs")
        disconnect_after(t, endless, lambda _: t.load()["num_waiting_reqs"] == 1)
        check(until(lambda: stages()["queued"] == 1), stages())
        equal(t.load()["num_running_reqs"], 1)
        running.close()
        took.append(free())
        equal(stages(), {"queued": 1, "prefill": 1, "decode": 2, "tool_call": 0})
        disconnect_after(t, weather, lambda data: b"query_weather" in data)
        took.append(free())
        equal(stages()["tool_call"], 1)
        equal(metric(t, "fathom:pages_leaked"), 0)
        print(f"     pages back after at most {max(took) * 1e3:.0f} ms", flush=True)


@test
def line_05_overload(_):
    endless = {"messages": STORY, "max_tokens": 3000, "ignore_eos": True}
    with serving("--max-running-requests", "1", "--max-queued-requests", "2") as t:
        held = []
        for number in (1, 2, 3):  # one runs before the others come: until then it waits as they do
            held.append(t.raw_post(CHAT, endless))
            check(until(lambda: t.load()["num_running_reqs"] == 1 and t.busy() == number), t.load())
        status, headers, body = t.request("POST", CHAT, {"messages": HELLO})
        equal(status, 503, body)
        check(int(headers["Retry-After"]) >= 1, headers)
        check("queue" in json.loads(body)["error"]["message"], body)
        # By what the pool holds, not only by their number: what can never fit is refused at once.
        status, _, body = t.request("POST", CHAT, {"messages": [{"role": "user", "content": "word " * 20000}]})
        equal((status, json.loads(body)["error"]["code"]), (400, "context_length_exceeded"))
        for connection in held:
            connection.close()
        check(until(lambda: t.busy() == 0), t.load())
        equal(t.request("POST", CHAT, {"messages": HELLO, "max_tokens": 2})[0], 200)
    with serving("--max-concurrent-requests", "4") as t:
        held = [t.raw_post(CHAT, {**endless, "stream": True}) for _ in range(4)]
        for connection in held:  # a look at the server would take a place that one of them needs
            equal(connection.recv(12), b"HTTP/1.1 200")
        status, headers, _ = t.request("POST", CHAT, {"messages": HELLO})
        equal(status, 503, "all handlers are at work")
        check(int(headers["Retry-After"]) >= 1, headers)
        for path in ("/health", "/ready", "/ping", "/v1/loads"):
            equal(t.request("GET", path)[0], 200, f"{path} has a handler all the same")
        equal(t.request("POST", "/abort_request", {"abort_all": True})[0], 200)
        for connection in held:
            connection.close()
        check(until(lambda: t.request("POST", CHAT, {"messages": HELLO, "max_tokens": 2})[0] == 200), "it recovers")


@test
def line_13_every_limit_has_a_flag(_):
    function = {"name": "f", "parameters": {"type": "object"}}
    tool = {"type": "function", "function": function}
    deep = {"type": "object"}
    for _ in range(12):
        deep = {"type": "object", "properties": {"a": deep}}

    def chat(**fields):
        return {"messages": HELLO, "max_tokens": 1, **fields}

    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {
        "type": "object", "properties": {f"property_{i}": {"type": "string"} for i in range(40)}}}}
    cases = [  # flag, its value, a request that it refuses, one that it lets through
        ("--max-messages", 2, chat(messages=HELLO * 3), chat(messages=HELLO * 2)),
        ("--max-tools", 2, chat(tools=[tool] * 3), chat(tools=[tool] * 2)),
        ("--max-choices", 3, chat(n=4), chat(n=3)),
        ("--max-stop-strings", 2, chat(stop=["a", "b", "c"]), chat(stop=["a", "b"])),
        ("--max-stop-bytes", 5, chat(stop="sixsix"), chat(stop="fives")),
        ("--max-logit-bias", 2, chat(logit_bias={"1": 0, "2": 0, "3": 0}), chat(logit_bias={"1": 0, "2": 0})),
        ("--max-json-depth", 10, chat(tools=[{"type": "function", "function": {"name": "f", "parameters": deep}}]),
         chat(tools=[tool])),
        ("--max-json-keys", 30, chat(**{f"key{i}": i for i in range(40)}), chat()),
        ("--max-json-values", 60, chat(stop_token_ids=list(range(80))), chat()),
        ("--max-grammar-bytes", 500, chat(response_format=schema), chat(regex="a{1,3}")),
        ("--max-grammar-bytes", 500, chat(regex="(abcdefgh|" + "x" * 500 + ")"), chat(regex="a|b")),
    ]
    flags = {flag: str(value) for flag, value, *_ in cases}
    # Depth and counts of JSON apply to all of the others' requests too, so they have a server of their own.
    for json_flags in (True, False):
        chosen = {f: v for f, v in flags.items() if f.startswith("--max-json") == json_flags}
        with serving(*[part for pair in chosen.items() for part in pair]) as t:
            for flag, value, bad, good in cases:
                if flag not in chosen:
                    continue
                status, _, body = t.request("POST", CHAT, bad)
                equal(status, 400, f"{flag} {value}: {body[:300]}")
                check(str(value) in json.loads(body)["error"]["message"], f"{flag} {value}: {body}")
                status, _, body = t.request("POST", CHAT, good)
                equal(status, 200, f"{flag} {value}: {body[:300]}")
    with serving("--max-batch", "3", "--max-header-bytes", "2000", "--max-body-bytes", "3000") as t:
        equal(t.request("POST", "/v1/completions", {"prompt": ["a", "b"], "n": 2})[0], 400)
        equal(t.request("POST", "/v1/completions", {"prompt": ["a"], "n": 3, "max_tokens": 1})[0], 200)
        equal(t.request("GET", "/health", headers={"X-Filler": "x" * 2000})[0], 431)
        equal(t.request("POST", CHAT, {"messages": [{"role": "user", "content": "x" * 3000}]})[0], 413)


@test
def line_13_hostile_grammars_fail_alone(_):
    hostile = [{"regex": "(" * 2000 + ")" * 2000}, {"regex": "((a{1,1000}){1,1000}){1,1000}"}, {"regex": "(a*)*(b*)*" * 400},
               {"ebnf": 'root ::= root "a"'}, {"ebnf": "root ::= " + "(" * 5000},
               {"json_schema": {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}},
               {"json_schema": {"type": "array", "minItems": 10**9, "items": {"type": "string"}}},
               {"json_schema": {"type": "object", "properties": {f"p{i}": {"enum": list(range(300))} for i in range(300)}}}]
    with serving() as t:
        worst = 0.0
        for form in hostile:
            start = time.monotonic()
            status, _, body = t.request("POST", CHAT, {"messages": HELLO, "max_tokens": 2, **form})
            worst = max(worst, time.monotonic() - start)
            check(status in (200, 400), f"{str(form)[:100]}: {status} {body[:300]}")
        print(f"     slowest answer {worst:.2f} s", flush=True)
        check(worst < 20, f"{worst} s")
        equal(t.request("POST", CHAT, {"messages": HELLO, "max_tokens": 2})[0], 200)


@test
def line_14_no_url_is_ever_fetched(_):
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(1.0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/image.png"
    with serving() as t:
        for kind in ("image_url", "video_url", "audio_url"):
            status, _, _ = t.request("POST", CHAT, {"messages": [{"role": "user", "content": [
                {"type": kind, kind: {"url": url}}]}]})
            equal(status, 400)
        equal(t.request("POST", "/generate", {"text": "x", "image_data": url})[0], 400)
        schema = {"$ref": url + "#/a"}
        equal(t.request("POST", CHAT, {"messages": HELLO, "json_schema": schema})[0], 400)
        t.request("POST", CHAT, {"messages": [{"role": "user", "content": url}], "max_tokens": 2})
        try:
            listener.accept()
            check(False, "the server fetched a URL")
        except TimeoutError:
            pass
    listener.close()


@test
def line_15_special_tokens_that_users_type_are_text(_):
    with serving() as t:
        vocabulary = t.post("/tokenize", {"prompt": "x", "add_special_tokens": False})[1]
        check(vocabulary["tokens"], vocabulary)
        markers = ["<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>",
                   "<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>"]
        ids = {}
        for marker in markers:
            tokens = t.post("/tokenize", {"prompt": marker, "add_special_tokens": False})[1]["tokens"]
            if len(tokens) == 1:  # completions' exception: what a prompt of plain text says is taken as it is
                ids[marker] = tokens[0]
        check(len(ids) >= 6, f"the demo model's special tokens: {ids}")

        def counts(body):
            status, answer = t.post("/tokenize", body)
            equal(status, 200, answer)
            return [answer["tokens"].count(token) for token in ids.values()]

        def tools(name="f", description="d", property_name="p", enum="e"):
            return [{"type": "function", "function": {"name": name, "description": description, "parameters": {
                "type": "object", "properties": {property_name: {"type": "string", "description": description,
                                                                 "enum": [enum]}}}}}]

        def call(name="f", arguments="{}"):
            return [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}]},
                {"role": "tool", "tool_call_id": "c", "content": "1"}]

        fields = {
            "user": lambda s: {"messages": [{"role": "user", "content": s}]},
            "user in parts": lambda s: {"messages": [{"role": "user", "content": [
                {"type": "text", "text": "a"}, {"type": "text", "text": s}]}]},
            "split between parts": lambda s: {"messages": [{"role": "user", "content": [
                {"type": "text", "text": s[:5]}, {"type": "text", "text": s[5:]}]}]},
            "user's name": lambda s: {"messages": [{"role": "user", "name": s, "content": "x"}]},
            "system": lambda s: {"messages": [{"role": "system", "content": s}, *HELLO]},
            "tool's answer": lambda s: {"messages": call()[:2] + [{"role": "tool", "tool_call_id": "c", "content": s}]},
            "tool_call_id": lambda s: {"messages": call()[:2] + [{"role": "tool", "tool_call_id": s, "content": "1"}]},
            "called name": lambda s: {"messages": call(name="f" + s)},
            "arguments": lambda s: {"messages": call(arguments=json.dumps({"a": s}, ensure_ascii=False))},
            "tool's name": lambda s: {"messages": HELLO, "tools": tools(name="f" + s)},
            "tool's description": lambda s: {"messages": HELLO, "tools": tools(description="d" + s)},
            "property's name": lambda s: {"messages": HELLO, "tools": tools(property_name="p" + s)},
            "enum": lambda s: {"messages": HELLO, "tools": tools(enum="e" + s)},
            "chat_template_kwargs": lambda s: {"messages": HELLO, "chat_template_kwargs": {"custom": s}},
        }
        for what, make in fields.items():
            plain = counts(make("plain"))
            for marker in ids:
                equal(counts(make(marker)), plain, f"special tokens with {marker} in {what}")
                equal(counts(make(marker * 3)), plain, f"special tokens with three {marker} in {what}")
        answer = t.chat("".join(ids), max_tokens=3)
        check(answer.usage.completion_tokens >= 1)
        # Only who asks for tokens gets them, and an operator who wants them for all.
        typed = {"messages": [{"role": "user", "content": "".join(ids)}]}
        text = counts(typed)
        equal(counts({**typed, "split_special_tokens": True}), text)
        tokens = [count + 1 for count in text]
        equal(counts({**typed, "split_special_tokens": False}), tokens)
    with serving("--no-split-special-tokens") as t:
        equal(counts(typed), tokens)
        equal(counts({**typed, "split_special_tokens": True}), text)
