"""A key's limits and the server's, as the openai and anthropic clients meet them. Starts servers of its own."""
import contextlib
import os
import pathlib
import tempfile
import threading

import anthropic
import openai

import running_server
from runner import check, equal, raises, test, until
from target import Target

STORY = [{"role": "user", "content": "Tell me a story."}]


@contextlib.contextmanager
def serving(*flags, key=""):
    with running_server.RunningServer("--model-path", "models/demo", *flags) as server:
        yield Target(server.base, key)


@contextlib.contextmanager
def key_file(text):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "keys")
        with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(text)
        yield str(path)


def openai_of(t, key, retries=0):
    return openai.OpenAI(base_url=t.base + "/v1", api_key=key, max_retries=retries, timeout=60)


def anthropic_of(t, key, retries=0):
    return anthropic.Anthropic(base_url=t.base, api_key=key, max_retries=retries, timeout=60)


def ask(t, client, **fields):
    fields = {"model": t.model, "messages": STORY, "max_tokens": 2, **fields}
    if isinstance(client, openai.OpenAI):
        return client.chat.completions.create(**fields)
    return client.messages.create(**fields)


def retry_after(error):
    seconds = int(error.response.headers["Retry-After"])
    check(1 <= seconds <= 60, seconds)
    return seconds


@contextlib.contextmanager
def endless(t, key, load):
    """A request that runs, or waits, until it is left; `load` is asked whether it is there."""
    stream = ask(t, openai_of(t, key), max_tokens=3000, stream=True, extra_body={"ignore_eos": True})
    check(until(load), "it is there")
    try:
        yield stream
    finally:
        stream.close()


@test
def a_key_beyond_its_limit_meets_429(_):
    text = "few:key-f:requests-per-minute=2\nother:key-o:requests-per-minute=2\nnarrow:key-n:concurrent=1\nboss:key-c:admin\n"
    with key_file(text) as path, serving("--api-key-file", path, key="key-c") as t:
        for _ in range(2):
            ask(t, openai_of(t, "key-f"))
        error = raises(openai.RateLimitError, ask, t, openai_of(t, "key-f"))
        equal((error.status_code, error.code), (429, "rate_limit_exceeded"))
        retry_after(error)
        error = raises(anthropic.RateLimitError, ask, t, anthropic_of(t, "key-f"))
        equal(error.body["error"]["type"], "rate_limit_error")
        retry_after(error)
        ask(t, anthropic_of(t, "key-o"))  # another's limit is another's

        # A client that may try again waits as long as it is told to, and is served.
        with endless(t, "key-n", lambda: t.busy() == 1) as running:
            raises(openai.RateLimitError, ask, t, openai_of(t, "key-n"))
            timer = threading.Timer(0.5, running.close)
            timer.start()
            check(ask(t, openai_of(t, "key-n", retries=5)).choices[0].message.content)
            timer.join()


@test
def a_full_queue_meets_503(_):
    with serving("--max-running-requests", "1", "--max-queued-requests", "1") as t:
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(endless(t, "none", lambda: t.load()["num_running_reqs"] == 1))
            waiting = []
            # A stream's head comes with its first token: who waits in the queue is waited for elsewhere.
            thread = threading.Thread(target=lambda: waiting.append(ask(t, openai_of(t, "none"))))
            thread.start()
            check(until(lambda: t.busy() == 2), t.load())
            error = raises(openai.InternalServerError, ask, t, openai_of(t, "none"))
            equal(error.status_code, 503)
            retry_after(error)
            error = raises(anthropic.InternalServerError, ask, t, anthropic_of(t, "none"))
            equal((error.status_code, error.body["error"]["type"]), (503, "overloaded_error"))
            retry_after(error)
            timer = threading.Timer(0.5, running.close)
            timer.start()
            check(ask(t, anthropic_of(t, "none", retries=5)).content)
            timer.join()
            thread.join()
            check(waiting and waiting[0].choices[0].message.content, "who waited was served")
