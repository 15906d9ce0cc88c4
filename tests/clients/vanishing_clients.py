"""Clients that go away, read slowly or not at all: their requests end and their pages come back."""
import asyncio
import time

from runner import check, equal, test, until

CHAT = "/v1/chat/completions"
ENDLESS = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 3000, "ignore_eos": True}


def idle(t):
    """Nothing runs, and no page is held but by the prefix cache."""
    return until(lambda: t.busy() == 0 and t.load()["num_used_tokens"] == 0, 20)


@test
def a_closed_stream_frees_its_request(t):
    stream = t.chat("Tell me a story.", max_tokens=3000, stream=True, extra_body={"ignore_eos": True})
    for _ in range(3):
        next(iter(stream))
    equal(t.busy(), 1)
    stream.close()
    check(idle(t), t.load())


@test
def a_closed_socket_frees_its_request(t):
    for body in ({**ENDLESS, "stream": True}, ENDLESS, {**ENDLESS, "n": 4}):
        connection = t.raw_post(CHAT, body)
        check(until(lambda: t.busy() == body.get("n", 1)), "the request runs")
        connection.close()
        check(idle(t), t.load())


@test
def a_cancelled_task_frees_its_request(t):
    async def cancel():
        async with t.async_client() as client:
            task = asyncio.create_task(client.chat.completions.create(
                model=t.model, messages=ENDLESS["messages"], max_tokens=3000, extra_body={"ignore_eos": True}))
            await asyncio.sleep(0.5)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancel())
    check(idle(t), t.load())


@test
def many_vanish_while_others_are_served(t):
    expected = t.chat("What is 7 + 5?").choices[0].message.content
    sockets = [t.raw_post(CHAT, {**ENDLESS, "stream": i % 2 == 0}) for i in range(16)]
    check(until(lambda: t.busy() >= 8), "the requests run")
    for connection in sockets[:8]:
        connection.close()
    equal(t.chat("What is 7 + 5?").choices[0].message.content, expected)
    for connection in sockets[8:]:
        connection.close()
    check(idle(t), t.load())
    equal(t.chat("What is 7 + 5?").choices[0].message.content, expected)


@test
def a_reader_that_does_not_read_holds_nobody_up(t):
    connection = t.raw_post(CHAT, {**ENDLESS, "stream": True, "n": 2})
    start = time.monotonic()
    for _ in range(3):
        t.chat("What is 7 + 5?", max_tokens=16)
    check(time.monotonic() - start < 30, "others wait for a slow reader")
    connection.close()
    check(idle(t), t.load())


@test
def half_a_request_is_no_request(t):
    for part in (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Le", b"\x16\x03\x01\x02\x00",
                 b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{"):
        t.raw(part).close()
    equal(t.request("GET", "/health")[0], 200)
    equal(t.busy(), 0)
