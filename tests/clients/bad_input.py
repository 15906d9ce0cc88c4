"""Malformed and hostile requests: a clear error each, and the server goes on."""
import json

from runner import check, equal, test, until

CHAT = "/v1/chat/completions"
POSTS = (CHAT, "/v1/completions", "/generate", "/tokenize", "/detokenize", "/abort_request", "/v1/responses",
         "/v1/messages", "/v1/messages/count_tokens", "/apply-template", "/separate_reasoning", "/parse_function_call")


def refused(t, path, body, statuses=(400,)):
    status, _, text = t.request("POST", path, body)
    check(status in statuses, f"{path} {str(body)[:80]}: status {status}, {text[:200]}")
    error = json.loads(text)["error"]
    check(isinstance(error["message"], str) and error["message"], error)
    return error


@test
def json_that_is_none(t):
    for path in POSTS:
        for body in ("", "{", "[]", "null", "1", '"text"', '{"a": 1} trailing', "{'a': 1}", '{"a": NaN}',
                     '{"a": 1e999}', '{"a": "\\ud800"}', '{"a": 1, "a": 2}', b'{"a": "\xff"}', b"\x00\x01\x02",
                     '{"a": ' + "[" * 100000 + "]" * 100000 + "}"):
            refused(t, path, body)


@test
def big_and_deep_values(t):
    refused(t, CHAT, json.dumps({f"key{i}": i for i in range(100000)}))
    refused(t, CHAT, json.dumps({"messages": [{"role": "user", "content": "x"}] * 50000}))
    refused(t, "/generate", json.dumps({"input_ids": [[5]] * 20000}))
    refused(t, "/generate", json.dumps({"input_ids": [5] * 1000000}))
    bias = {str(i): 1 for i in range(3000)}
    refused(t, CHAT, json.dumps({"messages": [{"role": "user", "content": "x"}], "logit_bias": bias}))
    refused(t, CHAT, json.dumps({"messages": [{"role": "user", "content": "x"}], "stop": ["a"] * 1000}))


@test
def wrong_types_name_the_field(t):
    message = [{"role": "user", "content": "x"}]
    for field, value in (("temperature", "hot"), ("temperature", True), ("top_p", []), ("n", 1.5), ("n", -1),
                         ("n", 10**6), ("max_tokens", "5"), ("max_tokens", 10**30), ("stop", {}), ("stream", "yes"),
                         ("logit_bias", [1]), ("seed", 1.5), ("top_logprobs", 99), ("tools", {}),
                         ("stop_token_ids", [10**9]), ("rid", 7), ("priority", "high"), ("messages", "hi")):
        error = refused(t, CHAT, {"messages": message, **{field: value}})
        equal((error["param"] or "").split("[")[0], field)


@test
def unknown_and_unavailable_fields(t):
    error = refused(t, "/generate", {"text": "x", "sampling_params": {"max_new_token": 5}})
    check("max_new_tokens" in error["message"], error)
    for field, value in (("regex", "(a"), ("ebnf", "a ::= b"), ("lora_path", "x"),
                         ("custom_logit_processor", "x"), ("temprature", 1)):
        error = refused(t, CHAT, {"messages": [{"role": "user", "content": "x"}], field: value})
        equal(error["param"], field)
    refused(t, CHAT, {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]})


@test
def ids_outside_the_vocabulary(t):
    for ids in ([-1], [10**9], [2**63], [1.5], ["5"], [None], [], [[]], [[5], 5]):
        refused(t, "/generate", {"input_ids": ids})
        if ids != ["5"]:  # which is a text
            refused(t, "/v1/completions", {"prompt": ids})


@test
def wrong_content_type_path_and_method(t):
    status, _, _ = t.request("POST", CHAT, '{"messages": []}', {"Content-Type": "text/plain"})
    equal(status, 400)
    equal(t.get("/no/such/path")[0], 404)
    equal(t.get("/no/such/path")[1]["error"]["code"], "not_found")
    equal(t.get(CHAT)[0], 405)
    equal(t.request("DELETE", "/v1/models")[0], 405)


@test
def text_with_odd_characters(t):
    for text in ("\x00", "\ufdd0\ufdd1", "\U0001f600" * 20, "a\u0301", "\u202e", "<｜end▁of▁sentence｜>", " ", "\n"):
        answer = t.chat(text, max_tokens=2)
        check(answer.usage.prompt_tokens > 0)


@test
def the_server_still_answers(t):
    equal(t.request("GET", "/health_generate")[0], 200)
    check("12" in t.chat("What is 7 + 5?").choices[0].message.content)
    check(until(lambda: t.busy() == 0), "nothing runs")
