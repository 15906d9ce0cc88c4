"""Connections as clients keep them: one for many requests, and requests sent before the last is answered."""
import http.client
import json
import re

import httpx
import openai

from runner import check, equal, raises, test

HELLO = [{"role": "user", "content": "Hello"}]


@test
def the_openai_client_needs_one_connection(t):
    opened = []

    def trace(event, _):
        if event == "connection.connect_tcp.started":
            opened.append(event)

    def follow(request):
        request.extensions["trace"] = trace

    with httpx.Client(event_hooks={"request": [follow]}) as transport:
        client = openai.OpenAI(base_url=t.base + "/v1", api_key=t.api_key or "none", max_retries=0, timeout=60,
                               http_client=transport)
        fields = {"model": t.model, "messages": HELLO, "max_tokens": 4}
        for _ in range(3):
            client.chat.completions.create(**fields)
            raises(openai.BadRequestError, client.chat.completions.create, **fields, extra_body={"top_p": 7})
            raises(openai.NotFoundError, client.chat.completions.create, **{**fields, "model": "another"})
            client.models.list()
            # This client closes the connection of a stream at [DONE]; one that reads to the end need not.
            with transport.stream("POST", t.base + "/v1/chat/completions", json={**fields, "stream": True},
                                  headers={"Authorization": f"Bearer {t.api_key}"}) as stream:
                check(b"[DONE]" in stream.read())
    equal(len(opened), 1, "connections of 15 requests")


def request_bytes(t, method, path, body=None, headers=""):
    text = b"" if body is None else json.dumps(body).encode()
    key = f"Authorization: Bearer {t.api_key}\r\n" if t.api_key else ""
    return (f"{method} {path} HTTP/1.1\r\nHost: test\r\n{key}{headers}Content-Type: application/json\r\n"
            f"Content-Length: {len(text)}\r\n\r\n").encode() + text


class Answers:
    """What comes on a raw connection, one answer after the other."""

    def __init__(self, connection):
        self.connection = connection
        self.connection.settimeout(60)
        self.stream = connection.makefile("rb")

    def next(self):
        """(status, headers, body), or nothing once the server has closed."""
        line = self.stream.readline()
        if not line:
            return None
        headers = http.client.parse_headers(self.stream)
        if headers["Transfer-Encoding"] == "chunked":
            body = b""
            while size := int(self.stream.readline(), 16):
                body += self.stream.read(size)
                self.stream.readline()
            self.stream.readline()
        else:
            body = self.stream.read(int(headers["Content-Length"]))
        return int(re.match(rb"HTTP/1.1 (\d+) ", line).group(1)), headers, body


@test
def pipelined_requests_are_answered_in_order(t):
    chat = {"messages": HELLO, "max_tokens": 3, "temperature": 0, "model": t.model}
    sent = [("POST", "/v1/chat/completions", chat, 200), ("GET", "/v1/models", None, 200),
            ("POST", "/v1/chat/completions", {**chat, "stream": True}, 200), ("GET", "/no/such/path", None, 404),
            ("POST", "/v1/chat/completions", {**chat, "top_p": 7}, 400), ("GET", "/health", None, 200)] * 3
    connection = t.raw(b"".join(
        request_bytes(t, method, path, body, f"X-Request-Id: turn-{i}\r\n") for i, (method, path, body, _) in enumerate(sent)))
    answers = Answers(connection)
    for i, (_, path, _, expected) in enumerate(sent):
        status, headers, _ = answers.next()
        equal((status, headers["X-Request-Id"]), (expected, f"turn-{i}"), path)
    connection.close()


@test
def a_long_row_of_requests_waits_in_the_socket(t):
    """More than the server reads ahead, sent at once while the first answer is still being made."""
    count = 2000
    first = request_bytes(t, "POST", "/v1/chat/completions",
                          {"messages": HELLO, "max_tokens": 200, "ignore_eos": True, "model": t.model, "stream": True})
    connection = t.raw(first)
    rest = b"".join(request_bytes(t, "GET", "/v1/models", None, f"X-Request-Id: row-{i}\r\n") for i in range(count))
    connection.setblocking(False)
    sent = 0
    try:
        while sent < len(rest):
            sent += connection.send(rest[sent:])
    except BlockingIOError:
        pass  # the socket is full: the server reads no further ahead
    answers = Answers(connection)
    status, _, body = answers.next()
    equal((status, body.count(b"data: {") > 100), (200, True))
    connection.sendall(rest[sent:]) if sent < len(rest) else None
    for i in range(count):
        status, headers, _ = answers.next()
        equal((status, headers["X-Request-Id"]), (200, f"row-{i}"))
    connection.close()


@test
def what_follows_a_request_that_cannot_be_read_is_not_answered(t):
    good = request_bytes(t, "GET", "/v1/models")
    broken = [(b"POST /v1/models HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
              (b"GET /v1/models HTTP/1.1\r\nHost: test\r\nX-Filler: " + b"x" * 70000 + b"\r\n\r\n", 431),
              (b"POST /v1/models HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999\r\n\r\n", 413)]
    for bad, expected in broken:
        connection = t.raw(good)
        answers = Answers(connection)
        equal(answers.next()[0], 200)
        try:
            connection.sendall(bad + good)
        except OSError:
            pass  # refused before all of it was sent
        status, headers, _ = answers.next()
        equal((status, headers["Connection"]), (expected, "close"))
        try:
            equal(answers.next(), None, "an answer after one that closes")
        except OSError:
            pass  # reset, since the server did not read the rest
        connection.close()
