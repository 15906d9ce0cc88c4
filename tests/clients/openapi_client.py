"""/openapi.json: a valid document that real requests and answers agree with."""
import json

import jsonschema
import openapi_spec_validator

from runner import check, equal, test

MESSAGE = [{"role": "user", "content": "What is 7 + 5?"}]
TOOL = {"name": "get_time", "description": "Get the time in a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
BODIES = {
    "/v1/chat/completions": [
        {"messages": MESSAGE, "max_tokens": 40, "logprobs": True, "top_logprobs": 2, "reasoning_effort": "low"},
        {"messages": MESSAGE, "max_tokens": 9, "return_token_ids": True, "return_prompt_token_ids": True,
         "return_meta_info": True},
        {"messages": MESSAGE, "max_tokens": 40, "tools": [{"type": "function", "function": TOOL}],
         "tool_choice": "required"}],
    "/v1/completions": [{"prompt": "Once", "echo": True, "logprobs": 2}],
    "/v1/responses": [{"input": "What is 7 + 5?", "reasoning": {"effort": "low"}, "top_logprobs": 1},
                      {"input": "Hello", "tools": [{"type": "function", **TOOL}], "tool_choice": "required"}],
    "/v1/messages": [{"messages": MESSAGE, "max_tokens": 40, "thinking": {"type": "adaptive"}},
                     {"messages": MESSAGE, "max_tokens": 40, "tool_choice": {"type": "any"},
                      "tools": [{"name": "get_time", "input_schema": TOOL["parameters"]}]}],
    "/v1/messages/count_tokens": [{"messages": MESSAGE}],
    "/generate": [{"text": ["a", "b"], "return_logprob": True, "top_logprobs_num": 2, "token_ids_logprob": [1],
                   "logprob_start_len": 0, "return_prompt_token_ids": True, "sampling_params": {"max_new_tokens": 4}}],
    "/tokenize": [{"prompt": "a"}, {"prompt": ["a", "b"]}],
    "/detokenize": [{"tokens": [5, 6]}],
    "/apply-template": [{"messages": MESSAGE}],
    "/separate_reasoning": [{"text": "<think>a</think>b", "return_blocks": True}],
    "/parse_function_call": [{"text": "a"}],
}


def closed(schema):
    """The schema with nothing allowed in its objects but what it lists."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        schema.setdefault("additionalProperties", False)
    return schema


def validate(document, reference, value):
    schemas = {name: closed(schema) for name, schema in document["components"]["schemas"].items()}
    jsonschema.Draft202012Validator({"components": {"schemas": schemas}, **reference}).validate(value)


@test
def the_document_is_valid(t):
    status, document = t.get("/openapi.json")
    equal(status, 200)
    openapi_spec_validator.validate(document)


@test
def answers_agree_with_it(t):
    document = t.get("/openapi.json")[1]
    for path, bodies in BODIES.items():
        operation = document["paths"][path]["post"]
        request = operation["requestBody"]["content"]["application/json"]["schema"]
        content = operation["responses"]["200"]["content"]
        for body in bodies:
            body = {**body, "temperature": 0} if path.startswith("/v1/c") and "prompt" in body else body
            validate(document, request, body)
            status, answer = t.post(path, body)
            equal(status, 200, f"{path}: {answer}")
            validate(document, content["application/json"]["schema"], answer)
            if "text/event-stream" not in content or any(key.startswith("return_") and "logprob" not in key for key in body):
                continue
            text = t.request("POST", path, {**body, "stream": True})[2].decode()
            events = [line[6:] for line in text.split("\n") if line.startswith("data: ") and line != "data: [DONE]"]
            check(events, text)
            for event in events:
                validate(document, content["text/event-stream"]["x-event-schema"], json.loads(event))
    for path in ("/v1/models", "/model_info", "/server_info", "/v1/loads", f"/v1/models/{t.model}"):
        name = "/v1/models/{model}" if path.endswith(t.model) else path
        answer = document["paths"][name]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        validate(document, answer, t.get(path)[1])


@test
def errors_agree_with_it(t):
    document = t.get("/openapi.json")[1]
    for path in BODIES:
        error = document["paths"][path]["post"]["responses"]["default"]["content"]["application/json"]["schema"]
        for body in ("{", {"no_such_field": 1}):
            status, answer = t.post(path, body)
            equal(status, 400, path)
            validate(document, error, answer)


@test
def the_examples_work(t):
    for path, methods in t.get("/openapi.json")[1]["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        for example in content.get("application/json", {}).get("examples", {}).values():
            status, _, text = t.request("POST", path, example["value"])
            equal(status, 200, f"{path} {example}: {text[:300]}")
