"""Checklist lines 6, 7, 8, 9, 10: how the server lives and ends, and what it does with bad files."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

import running_server
from runner import check, equal, test, until
from server import CHAT, HELLO, ROOT, STORY, metric, resident_bytes, serving

DEMO = ROOT / "models/demo"


@test
def line_06_sigterm_finishes_what_runs(_):
    with serving() as t:
        got = {}

        def ask():
            got["answer"] = t.post(CHAT, {"messages": STORY, "max_tokens": 600, "ignore_eos": True})

        thread = threading.Thread(target=ask)
        thread.start()
        check(until(lambda: t.busy() == 1), "it runs")
        start = time.monotonic()
        t.server.process.send_signal(signal.SIGTERM)

        def refused():
            try:
                return t.request("GET", "/ready")[0] == 503
            except OSError:
                return not thread.is_alive()
        check(until(refused), "not ready any more")
        thread.join()
        equal(got["answer"][0], 200)
        equal(got["answer"][1]["usage"]["completion_tokens"], 600)
        equal(t.server.process.wait(20), 0)
        print(f"     ended {time.monotonic() - start:.2f} s after the signal", flush=True)


@test
def line_06_a_deadline_and_a_second_signal(_):
    endless = {"messages": STORY, "max_tokens": 3900, "ignore_eos": True, "n": 32}
    with serving("--drain-timeout", "1") as t:
        held = t.raw_post(CHAT, endless)
        check(until(lambda: t.busy() > 0), "it runs")
        start = time.monotonic()
        t.server.process.send_signal(signal.SIGTERM)
        equal(t.server.process.wait(20), 0)
        check(time.monotonic() - start < 8, "the deadline holds")
        held.close()
    server = running_server.RunningServer("--model-path", "models/demo")
    server.__enter__()
    parts = urllib.parse.urlsplit(server.base)
    held = socket.create_connection((parts.hostname, parts.port))
    text = json.dumps(endless).encode()
    held.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
    time.sleep(0.5)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    equal(server.process.wait(5), 130)
    check(time.monotonic() - start < 1, "at once")
    held.close()
    server.log.close()
    pathlib.Path(server.log.name).unlink()


@test
def line_07_out_of_kv_memory_the_tokens_stay_the_same(_):
    questions = [f"Tell me a story. Number {i}." for i in range(8)]

    def answers(t):
        got = [None] * len(questions)

        def ask(i):
            got[i] = t.post(CHAT, {"messages": [{"role": "user", "content": questions[i]}], "temperature": 0,
                                   "max_tokens": 200, "ignore_eos": True})[1]["choices"][0]["message"]["content"]
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(questions))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return got

    with serving() as t:
        expected = answers(t)
    with serving("--max-total-tokens", "640", "--schedule-conservativeness", "0.0") as t:
        equal(answers(t), expected, "answers with a pool that is too small")
        retractions = metric(t, "fathom:preemptions_total")
        print(f"     {retractions:.0f} preemptions", flush=True)
        check(retractions > 0, "no request was preempted")
        equal(metric(t, "fathom:pages_leaked"), 0)
        check(until(lambda: t.load()["num_used_tokens"] == 0), t.load())
        # What can never fit fails alone.
        equal(t.request("POST", CHAT, {"messages": [{"role": "user", "content": "word " * 1500}]})[0], 400)
        equal(t.request("POST", CHAT, {"messages": HELLO, "max_tokens": 2})[0], 200)


@test
def line_07_no_request_makes_a_step_too_big(_):
    """What a step computes is bounded whatever is asked at once; its memory is there from the start."""
    chunk, slots, length = 64, 6, 1000
    # Different from the first token on, so that nothing is cached; the log-probabilities of the whole prompt, too.
    bodies = [{"input_ids": [20 + (7 * i + j) % 2900 for j in range(length)], "return_logprob": True,
               "logprob_start_len": 0, "top_logprobs_num": 5, "sampling_params": {"max_new_tokens": 4, "temperature": 0}}
              for i in range(slots)]
    with tempfile.TemporaryDirectory() as folder:
        trace = pathlib.Path(folder, "steps.json")
        with serving("--chunked-prefill-size", str(chunk), "--max-running-requests", str(slots), "--disable-radix-cache",
                     "--max-total-tokens", str(slots * (length + 64)), "--trace-file", str(trace)) as t:
            def burst():
                got = [None] * slots

                def ask(i):
                    got[i] = t.post("/generate", bodies[i])
                threads = [threading.Thread(target=ask, args=(i,)) for i in range(slots)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                for status, answer in got:
                    equal(status, 200, answer)
                    equal(len(answer["meta_info"]["input_token_logprobs"]), length)
                return resident_bytes(t)

            first = burst()
            grown = burst() - first
            print(f"     {first >> 20} MiB, {grown >> 20:+d} in the second burst", flush=True)
            check(grown < 24 << 20, f"the same steps took {grown} bytes more")
        steps = [e["args"] for e in json.loads(trace.read_text())["traceEvents"] if e["ph"] == "X" and e["tid"] == 1]
        largest = max(step["tokens"] for step in steps)
        check(chunk <= largest <= chunk + slots, f"a step of {largest} tokens")

        # A largest step that does not fit is refused before anything is served.
        run = subprocess.run([running_server.BINARY, "serve", "--port", "0", "--load-format", "dummy", "--device", "cpu",
                              "--chunked-prefill-size", str(1 << 20),
                              "--model-path", broken_model(folder, config(hidden_size=16384))],
                             capture_output=True, text=True, timeout=30)
        equal(run.returncode, 1, run.stderr)
        check("the workspaces" in run.stderr and "lower --chunked-prefill-size" in run.stderr, run.stderr)


def broken_model(folder, change):
    """A copy of the demo model, with links where nothing changes; `change` is given its folder."""
    model = pathlib.Path(folder, "model")
    model.mkdir()
    for file in DEMO.iterdir():
        if file.is_file():
            (model / file.name).symlink_to(file)
    change(model)
    return model


def rewrite(name, edit):
    def change(model):
        content = (DEMO / name).read_bytes()
        (model / name).unlink()
        (model / name).write_bytes(edit(content))
    return change


def config(**values):
    def edit(content):
        return json.dumps({**json.loads(content), **values}).encode()
    return rewrite("config.json", edit)


def tensors(edit):
    """`edit` changes the parsed header of the first shard."""
    def change(content):
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8:8 + size])
        edit(header)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + size:]
    return rewrite("model-00001-of-00003.safetensors", change)


def first_tensor(header):
    return next(value for name, value in header.items() if name != "__metadata__")


def nan_scale(content):
    """FP8 weights whose first scales are no numbers."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + size])
    begin, end = next(value["data_offsets"] for name, value in header.items() if name.endswith("_scale_inv"))
    content = bytearray(content)
    content[8 + size + begin:8 + size + end] = b"\x00\x00\xc0\x7f" * ((end - begin) // 4)
    return bytes(content)


@test
def line_08_hostile_files_are_refused(_):
    shard = "model-00001-of-00003.safetensors"
    cases = {
        "a truncated shard": rewrite(shard, lambda b: b[:len(b) // 2]),
        "an empty shard": rewrite(shard, lambda b: b""),
        "a header of 2^63 bytes": rewrite(shard, lambda b: (2**63).to_bytes(8, "little") + b[8:]),
        "a header that is no JSON": rewrite(shard, lambda b: b[:8] + b"x" * 100 + b[108:]),
        "overlapping tensors": tensors(lambda h: first_tensor(h).update(
            data_offsets=[at + 2 for at in first_tensor(h)["data_offsets"]])),
        "a tensor beyond the end": tensors(lambda h: first_tensor(h).update(data_offsets=[0, 2**50])),
        "a negative shape": tensors(lambda h: first_tensor(h).update(shape=[-1, 4])),
        "a wrong shape": tensors(lambda h: first_tensor(h).update(shape=[1, 1])),
        "a wrong dtype": tensors(lambda h: first_tensor(h).update(dtype="I8")),
        "an unknown dtype": tensors(lambda h: first_tensor(h).update(dtype="Q9")),
        "scales that are NaN": rewrite(shard, nan_scale),
        "huge layer counts": config(num_hidden_layers=2**31),
        "negative sizes": config(hidden_size=-64),
        "a size of zero": config(num_attention_heads=0),
        "huge experts": config(n_routed_experts=2**40),
        "sparse attention": config(index_topk=2048),
        "a string for a number": config(vocab_size="many"),
        "deep nesting": rewrite("config.json", lambda b: b'{"a": ' + b"[" * 100000),
        "another architecture": config(architectures=["LlamaForCausalLM"], model_type="llama"),
        "no config": lambda model: (model / "config.json").unlink(),
        "no shard": lambda model: (model / shard).unlink(),
        "an index that leaves the folder": rewrite("model.safetensors.index.json",
                                                   lambda b: b.replace(shard.encode(), b"../../" + shard.encode())),
        "a tokenizer that is none": rewrite("tokenizer.json", lambda b: b[:1000]),
        "a template without an end": rewrite("chat_template.jinja", lambda b: b"{% for m in messages %}"),
    }
    slowest = 0.0
    for what, change in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            model = broken_model(folder, change)
            start = time.monotonic()
            try:
                run = subprocess.run([running_server.BINARY, "serve", "--port", "0", "--model-path", model],
                                     capture_output=True, text=True, timeout=30)
            except subprocess.TimeoutExpired as late:
                check(False, f"{what}: neither refused nor ended in 30 s: {late.stderr}")
            slowest = max(slowest, time.monotonic() - start)
            equal(run.returncode, 1, f"{what}: exit code, {run.stderr[-500:]}")
            check("fathom serve: " in run.stderr, f"{what}: {run.stderr[-500:]}")
    print(f"     {len(cases)} kinds of files, the slowest refused after {slowest:.1f} s", flush=True)


@test
def line_08_a_model_of_links_works_and_runs_no_code(_):
    with tempfile.TemporaryDirectory() as folder:
        def poison(model):
            for name in ("configuration_deepseek.py", "modeling_deepseek.py", "__init__.py", "sitecustomize.py"):
                (model / name).write_text("open('executed', 'w').write('x')\n")
            config(auto_map={"AutoConfig": "configuration_deepseek.DeepseekV3Config"})(model)
        model = broken_model(folder, poison)
        with serving(model=str(model)) as t:
            equal(t.request("POST", CHAT, {"messages": HELLO, "max_tokens": 2})[0], 200)
        equal([str(p) for p in pathlib.Path(folder).rglob("executed")], [])
        check(not pathlib.Path(ROOT, "executed").exists())


def unit_tests(room, pattern):
    run = subprocess.run([ROOT / f"build/release/{room}_test", f"--gtest_filter={pattern}"], capture_output=True,
                         text=True, timeout=120)
    equal(run.returncode, 0, run.stdout[-2000:])
    check("[  PASSED  ]" in run.stdout and "[  PASSED  ] 0 tests" not in run.stdout, f"{room} {pattern}: no such test")


@test
def line_09_a_fault_of_the_device_ends_every_request(_):
    """No test can break a GPU: the scheduler's test gives it an executor that fails."""
    unit_tests("sched", "SchedulerTest.AFaultReachesEveryStreamAndLaterSubmits")
    unit_tests("api", "Health.*")


@test
def line_10_health_and_readiness(_):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([running_server.BINARY, "serve", "--port", str(port), "--model-path", DEMO],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen, end = [], time.monotonic() + 60
    while time.monotonic() < end and seen[-1:] != [200]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
                seen.append(answer.status)
        except urllib.error.HTTPError as failure:
            seen.append(failure.code)
            check(failure.headers["Retry-After"], "Retry-After while starting")
        except OSError:
            pass
    process.send_signal(signal.SIGTERM)
    equal(process.wait(20), 0)
    equal(seen[-1:], [200])
    check(set(seen[:-1]) <= {503}, seen)
    # A prompt of thousands of tokens, a few at a step, makes neither fail.
    with serving("--chunked-prefill-size", "8") as t:
        connection = t.raw_post(CHAT, {"messages": [{"role": "user", "content": "word " * 3500}], "max_tokens": 1})
        check(until(lambda: t.busy() == 1), "it runs")
        probes = 0
        while t.busy() == 1:
            equal([t.request("GET", path)[0] for path in ("/health", "/ready", "/health_generate")], [200] * 3)
            probes += 1
        check(probes > 0, "the prompt was too short")
        connection.close()
