"""Checklist lines 4, 5, 11, 12, 16: keys, tenants, ids, sockets."""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

import running_server
from runner import check, equal, test, until
from server import CHAT, HELLO, ROOT, STORY, listening, metric, serving


class KeyFile:
    """with KeyFile("alice:1\\nbob:2") as keys: ... keys.path, keys.write(text)"""

    def __init__(self, text):
        self.text = text

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = str(pathlib.Path(self.folder.name, "keys"))
        self.write(self.text)
        return self

    def write(self, text):
        with open(self.path + ".new", "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(text)
        os.replace(self.path + ".new", self.path)

    def __exit__(self, *_):
        self.folder.cleanup()


def status(t, method, path, key=None, body=None, scheme="Bearer "):
    t.api_key = ""
    headers = {} if key is None else {"Authorization": scheme + key}
    return t.request(method, path, body, headers)[0]


def routes():
    """[(method, path)] of the table in docs/api.md."""
    found = []
    for line in (ROOT / "docs/api.md").read_text().splitlines():
        if not re.match(r"\| (GET|POST|PUT)", line):
            continue
        cell = line.split(" | ")[0]
        method = re.match(r"\| (\w+)", cell).group(1)
        found += [(method, path) for path in re.findall(r"`(/[^`?]*)[^`]*`", cell.replace("{id}", "default"))]
    return found


@test
def line_04_ids_are_unguessable_and_exact(_):
    with serving() as t:
        ids = {t.chat("Hello", max_tokens=1).id for _ in range(50)}
        ids |= {t.request("GET", "/health")[1]["x-request-id"] for _ in range(50)}
        equal(len(ids), 100)
        check(all(re.fullmatch("[0-9a-f]{32}", one) for one in ids), ids)
        # 128 random bits: over 100 ids each of them is set about half of the time.
        set_bits = [sum(int(one, 16) >> bit & 1 for one in ids) for bit in range(128)]
        check(min(set_bits) > 15 and max(set_bits) < 85, set_bits)
        running = t.raw_post(CHAT, {"messages": STORY, "max_tokens": 3000, "ignore_eos": True, "rid": "abc-123"})
        check(until(lambda: t.busy() == 1), "it runs")
        for rid in ("", "abc", "abc-12", "abc-1234", "ABC-123", "%", "*", ".*"):
            t.post("/abort_request", {"rid": rid})
        t.post("/abort_request", {"rid": ["abc", "abc-12"]})
        equal(t.busy(), 1, "requests after aborting others")
        equal(t.post("/abort_request", {"rid": "abc-123"})[0], 200)
        check(until(lambda: t.busy() == 0), t.load())
        running.close()
        answer = t.request("POST", CHAT, {"messages": HELLO, "max_tokens": 1}, {"X-Request-Id": "trace-1"})
        equal(answer[1]["x-request-id"], "trace-1")
        equal(t.request("POST", CHAT, "{", {"X-Request-Id": "trace-2"})[1]["x-request-id"], "trace-2")


@test
def line_04_tenants_cannot_abort_each_other(_):
    with KeyFile("alice:key-a\nbob:key-b\nboss:key-c:admin") as keys, serving("--api-key-file", keys.path, key="key-c") as t:
        t.api_key = "key-a"
        running = t.raw_post(CHAT, {"messages": STORY, "max_tokens": 3000, "ignore_eos": True, "rid": "mine"})
        t.api_key = "key-c"
        check(until(lambda: t.busy() == 1), "it runs")
        equal(status(t, "POST", "/abort_request", "key-b", {"rid": "mine"}), 200)
        equal(status(t, "POST", "/abort_request", "key-b", {"abort_all": True}), 403)
        t.api_key = "key-c"
        equal(t.busy(), 1)
        equal(status(t, "POST", "/abort_request", "key-a", {"rid": "mine"}), 200)
        t.api_key = "key-c"
        check(until(lambda: t.busy() == 0), t.load())
        running.close()


@test
def line_05_a_key_has_its_limits(_):
    with KeyFile("few:key-f:requests-per-minute=3\nnarrow:key-n:concurrent=2\nsmall:key-s:tokens-per-minute=60\n"
                 "boss:key-c:admin") as keys, serving("--api-key-file", keys.path, key="key-c") as t:
        body = {"messages": HELLO, "max_tokens": 1}
        equal([status(t, "POST", CHAT, "key-f", body) for _ in range(4)], [200, 200, 200, 429])
        equal(status(t, "POST", CHAT, "key-n", body), 200)

        headers = {"Authorization": "Bearer key-f"}
        code, answer, text = t.request("POST", CHAT, body, headers)
        equal(code, 429)
        check(1 <= int(answer["Retry-After"]) <= 60, answer)
        equal(json.loads(text)["error"]["code"], "rate_limit_exceeded")

        t.api_key = "key-n"
        held = [t.raw_post(CHAT, {"messages": STORY, "max_tokens": 3000, "ignore_eos": True}) for _ in range(2)]
        t.api_key = "key-c"
        check(until(lambda: t.busy() == 2), "they run")
        equal(status(t, "POST", CHAT, "key-n", body), 429)
        for connection in held:
            connection.close()
        check(until(lambda: status(t, "POST", CHAT, "key-n", body) == 200), "the places come back")

        equal(status(t, "POST", CHAT, "key-s", {"messages": STORY, "max_tokens": 64, "ignore_eos": True}), 200)
        equal(status(t, "POST", CHAT, "key-s", body), 429)


@test
def line_11_every_route_needs_a_key(_):
    listed = routes()
    check(len(listed) > 20, listed)
    open_to_all = {"/health", "/ready", "/ping"}
    with KeyFile("alice:key-a\nboss:key-c:admin") as keys, serving("--api-key-file", keys.path, key="key-c") as t:
        for method, path in listed + [("GET", "/no/such/path"), ("POST", "/"), ("GET", "/v1/models/x")]:
            body = {} if method == "POST" else None
            if path in open_to_all:
                equal(status(t, method, path), 200, path)
                continue
            for key in (None, "", "key", "key-", "key-aa", "KEY-A", "key-a\tx", "x" * 5000):
                equal(status(t, method, path, key, body), 401, f"{method} {path} with {key!r:.40}")
            equal(status(t, method, path, "key-a", body, scheme="Basic "), 401, f"{method} {path}")
            check(status(t, method, path, "key-a", body) != 401, f"{method} {path} with the key")
        for path in (CHAT, "/generate", "/tokenize", "/no/such/path", "/health"):  # nor is a body read
            with socket.create_connection((t.host, t.port), timeout=20) as connection:
                connection.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n\r\n{{".encode())
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
                check(answer.startswith(b"HTTP/1.1 405" if path == "/health" else b"HTTP/1.1 401"), answer)
        log = t.server.output()
        check("key-a" not in log and "key-c" not in log, "keys are in the log")


@test
def line_11_comparing_keys_takes_constant_time(_):
    """A guess that shares all but the last character with a key takes as long as one that shares none."""
    real = "k" * 256
    with KeyFile(f"alice:{real}") as keys, serving("--api-key-file", keys.path, key=real) as t:
        import http.client
        connection = http.client.HTTPConnection(t.host, t.port)

        def ask(key):
            start = time.perf_counter_ns()
            connection.request("GET", "/v1/models", headers={"Authorization": "Bearer " + key})
            answer = connection.getresponse()
            answer.read()
            equal(answer.status, 401)
            return time.perf_counter_ns() - start

        near, far = [], []
        for _ in range(1500):
            near.append(ask(real[:-1] + "x"))
            far.append(ask("x" * 256))
        near.sort()
        far.sort()
        difference = abs(near[len(near) // 2] - far[len(far) // 2]) / 1e3
        print(f"     median {near[len(near) // 2] / 1e3:.1f} us and {far[len(far) // 2] / 1e3:.1f} us", flush=True)
        check(difference < 0.2 * far[len(far) // 2] / 1e3, f"{difference} us")


@test
def line_11_the_key_file_is_read_again(_):
    with KeyFile("alice:one") as keys, serving("--api-key-file", keys.path, key="one") as t:
        running = t.raw_post(CHAT, {"messages": STORY, "max_tokens": 3000, "ignore_eos": True, "stream": True})
        running.recv(4096)
        keys.write("alice:two\n")
        check(until(lambda: status(t, "GET", "/v1/models", "two") == 200), "a change is noticed")
        equal(status(t, "GET", "/v1/models", "one"), 401)
        check(running.recv(4096), "a running request goes on")
        running.close()
        keys.write("alice:two\nthis line is wrong\n")
        t.server.process.send_signal(signal.SIGHUP)
        check(until(lambda: "line 2" in t.server.output()), t.server.output())
        equal(status(t, "GET", "/v1/models", "two"), 200, "a wrong file changes nothing")
        keys.write("alice:three\n")
        t.server.process.send_signal(signal.SIGHUP)
        check(until(lambda: status(t, "GET", "/v1/models", "three") == 200), "SIGHUP")


@test
def line_11_control_routes_have_a_key_of_their_own(_):
    with serving("--api-key", "user", "--admin-api-key", "root", key="user") as t:
        equal(status(t, "GET", "/v1/models", "user"), 200)
        equal(status(t, "POST", "/flush_cache", "user"), 403)
        equal(status(t, "POST", "/flush_cache", "root"), 200)
        equal(status(t, "POST", "/flush_cache"), 401)
        equal(status(t, "POST", "/abort_request", "user", {"abort_all": True}), 403)


@test
def line_12_one_socket_on_the_loopback_address(_):
    with serving() as t:
        t.chat("Hello", max_tokens=1)
        equal(listening(t.server.process.pid), [("0100007F", t.port)], "listening sockets")
    with serving("--host", "::1") as t:
        equal([port for _, port in listening(t.server.process.pid)], [t.port])


@test
def line_16_tenants_share_no_prefix(_):
    prompt = [{"role": "user", "content": "Count the words in this text: " + "one two three four " * 60}]

    def cached(t, key, **fields):
        t.api_key = key
        code, answer = t.post(CHAT, {"messages": prompt, "max_tokens": 1, **fields})
        equal(code, 200, answer)
        usage = answer["usage"]
        equal(usage["prompt_cache_hit_tokens"] + usage["prompt_cache_miss_tokens"], usage["prompt_tokens"])
        return usage["prompt_cache_hit_tokens"]

    with KeyFile("alice:key-a\nbob:key-b") as keys, serving("--api-key-file", keys.path, key="key-a") as t:
        equal(cached(t, "key-a"), 0)
        check(cached(t, "key-a") > 100, "one's own prefix is found")
        equal(cached(t, "key-b"), 0, "tokens that another tenant cached")
        for forged in ({"cache_salt": "key:alice:"}, {"extra_key": "key:alice:"}, {"cache_salt": "alice"}):
            equal(cached(t, "key-b", **forged), 0, f"tokens found with {forged}")
        check(cached(t, "key-b") > 100)
        equal(cached(t, "key-a", cache_salt="s"), 0, "tokens under a new salt")
        check(cached(t, "key-a", cache_salt="s") > 100)
        equal(status(t, "GET", "/server_info", "key-a"), 403, "figures of all tenants")
        equal(status(t, "GET", "/metrics", "key-a"), 403, "figures of all tenants")
    with KeyFile("alice:key-a\nbob:key-b") as keys, \
            serving("--api-key-file", keys.path, "--multi-tenant", "off", key="key-a") as t:
        equal(cached(t, "key-a"), 0)
        check(cached(t, "key-b") > 100, "keys of one tenant share prefixes")


@test
def line_16_tenants_are_told_of_their_own_prompts_only(_):
    text = "Count the words in this text: " + "one two three four " * 30

    def told(t, key, words):
        t.api_key = key
        body = {"messages": [{"role": "user", "content": text + words + text}], "max_tokens": 1, "explain_cache": True}
        code, answer = t.post(CHAT, body)
        equal(code, 200, answer)
        return answer["usage"]["prompt_cache_miss"]

    with KeyFile("alice:key-a\nbob:key-b") as keys, serving("--api-key-file", keys.path, key="key-a") as t:
        equal(told(t, "key-a", "The secret word is mango.")["reason"], "never_seen")
        equal(told(t, "key-b", "The secret word is melon.")["reason"], "never_seen")
        for key, words, cached in (("key-b", "mango", "melon"), ("key-a", "melon", "mango")):
            miss = told(t, key, f"The secret word is {words}.")
            equal(miss["reason"], "first_difference", key)
            check(cached in miss["before_text"] + miss["expected_text"], miss)
        process = subprocess.run([running_server.BINARY, "serve", "--model-path", "models/demo", "--port", "0", "--api-key-file",
                                  keys.path, "--cache-explanations", "all"], cwd=running_server.ROOT, capture_output=True,
                                 text=True, timeout=60)
        equal(process.returncode, 1, process.stderr)
        check("--cache-explanations all" in process.stderr, process.stderr)


@test
def line_16_simultaneous_tenants_do_not_wait_for_each_others_prefix(_):
    """The scheduler lets a request wait for one that computes its prefix; a tenant's must not wait for another's."""
    body = {"messages": [{"role": "user", "content": "word " * 1000}], "max_tokens": 1}
    with KeyFile("alice:key-a\nbob:key-b") as keys, serving("--api-key-file", keys.path, key="key-a") as t:
        seen = {}

        def ask(key):
            headers = {"Authorization": "Bearer " + key}
            seen[key] = json.loads(t.request("POST", CHAT, body, headers)[2])["usage"]["prompt_cache_hit_tokens"]

        threads = [threading.Thread(target=ask, args=(key,)) for key in ("key-a", "key-b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        equal(seen, {"key-a": 0, "key-b": 0})
