"""`fathom serve` with flags of its own."""
import http.client
import json
import re
import subprocess
import threading

from runner import check, equal, test, until
from running_server import RunningServer


def post(server, path, body, answers):
    connection = http.client.HTTPConnection(server.base.split("//")[1], timeout=60)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answers[path] = connection.getresponse().read().decode()
    connection.close()


@test
def comments_keep_a_waiting_stream_alive(b):
    messages = [{"role": "user", "content": "Tell me a story."}]
    streams = {"/v1/completions": {"prompt": "a", "max_tokens": 2},
               "/v1/chat/completions": {"messages": messages, "max_tokens": 2},
               "/v1/messages": {"messages": messages, "max_tokens": 2},
               "/v1/responses": {"input": "a", "max_output_tokens": 2}}
    answers = {}
    flags = ("--model-path", "models/demo", "--keep-alive-interval", "0.1", "--max-running-requests", "1")
    with RunningServer(*flags, binary=b.path) as server:
        threads = [threading.Thread(target=post, args=(server, "/generate", {
            "text": "a", "rid": "first", "sampling_params": {"max_new_tokens": 3000, "ignore_eos": True}}, answers))]
        threads[0].start()
        busy = "\"num_running_reqs\":1"
        check(until(lambda: busy in server.get("/v1/loads")[1]), "the first request runs")
        for path, body in streams.items():
            threads.append(threading.Thread(target=post, args=(server, path, {**body, "stream": True}, answers)))
            threads[-1].start()
        check(until(lambda: "\"num_waiting_reqs\":4" in server.get("/v1/loads")[1]), server.get("/v1/loads")[1])
        threading.Event().wait(0.5)
        post(server, "/abort_request", {"rid": "first"}, answers)
        for thread in threads:
            thread.join(60)
    for path in streams:
        check(answers[path].count(": keep-alive\n\n") >= 2, f"{path}: {answers[path][:300]}")
    equal(json.loads(answers["/generate"])["meta_info"]["finish_reason"]["type"], "abort")


@test
def a_model_has_several_names_and_defaults(b):
    def prompt(server, **fields):
        body = {"messages": [{"role": "user", "content": "Hello"}], **fields}
        connection = http.client.HTTPConnection(server.base.split("//")[1], timeout=60)
        connection.request("POST", "/apply-template", json.dumps(body), {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read()).get("prompt", "")

    flags = ("--model-path", "models/demo", "--served-model-name", "demo", "deepseek-chat", "deepseek-reasoner",
             "--default-chat-template-kwargs", '{"thinking": true}')
    with RunningServer(*flags, binary=b.path) as server:
        equal([m["id"] for m in json.loads(server.get("/v1/models")[1])["data"]],
              ["demo", "deepseek-chat", "deepseek-reasoner"])
        for model, thinks in (("demo", True), ("deepseek-reasoner", True), ("deepseek-chat", False)):
            check(prompt(server, model=model).endswith("<think>" if thinks else "</think>"), model)
        check(prompt(server, model="demo", reasoning_effort="none").endswith("</think>"))
        equal(prompt(server, model="gpt-4o"), "")
    code, _, errors = b.run("serve", "--model-path", "models/demo", "--default-chat-template-kwargs", "thinking")
    equal(code, 1)
    check("expected a JSON object" in errors, errors)


@test
def a_random_seed_makes_requests_without_a_seed_the_same(b):
    def drawn(*flags):
        with RunningServer("--model-path", "models/demo", *flags, binary=b.path) as server:
            answers = {}
            texts = []
            for _ in range(2):
                post(server, "/v1/completions", {"prompt": "a", "max_tokens": 32, "temperature": 2, "n": 2}, answers)
                texts += [c["text"] for c in json.loads(answers["/v1/completions"])["choices"]]
            return texts

    first = drawn("--random-seed", "7")
    equal(len(set(first)), 4, "each choice is drawn by itself")
    equal(drawn("--random-seed", "7"), first)
    check(drawn("--random-seed", "8") != first, "another seed")
    check(drawn() != drawn(), "without a seed nobody can guess")


@test
def no_chunks_have_several_names(b):
    for size in ("0", "-1", "-2"):
        with RunningServer("--model-path", "models/demo", "--chunked-prefill-size", size, binary=b.path) as server:
            equal(json.loads(server.get("/get_server_info")[1])["chunked_prefill_size"], -1, size)


@test
def a_pool_that_cuts_the_context_is_told_at_the_start(b):
    with RunningServer("--model-path", "models/demo", "--max-total-tokens", "256", binary=b.path) as server:
        said = [line for line in server.output().splitlines() if "context: a request may have" in line]
        equal(len(said), 1, server.output())
        served = json.loads(server.get("/get_server_info")[1])["max_req_input_len"] + 1
        check(f"may have {served} tokens, not the 4096 of the model" in said[0], said[0])
        check("bound by --max-total-tokens" in said[0] and "warning" in said[0], said[0])
    with RunningServer("--model-path", "models/demo", binary=b.path) as server:
        check("context: " not in server.output(), server.output())


@test
def a_request_log_that_takes_no_more_is_told_once(b):
    flags = ("--model-path", "models/demo", "--log-requests", "--log-requests-target", "/dev/full")
    with RunningServer(*flags, binary=b.path) as server:
        answers = {}
        for _ in range(3):
            post(server, "/v1/completions", {"prompt": "a", "max_tokens": 2}, answers)
        check(until(lambda: "--log-requests-target /dev/full: No space left" in server.output()), server.output())
        equal(server.output().count("lines are lost"), 1)


@test
def a_log_that_nobody_reads_any_more_ends_nothing(b):
    process = subprocess.Popen([b.path, "serve", "--model-path", "models/demo", "--port", "0", "--log-requests"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        address = next(found[1] for line in process.stdout if (found := re.search(r"ready in .*?http://(\S+)", line)))
        process.stdout.close()
        for _ in range(3):
            connection = http.client.HTTPConnection(address, timeout=60)
            connection.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 2}),
                               {"Content-Type": "application/json"})
            equal(connection.getresponse().status, 200)
            connection.close()
        process.terminate()
        equal(process.wait(60), 0)
    finally:
        process.kill()
