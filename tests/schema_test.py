"""Constrained output through the server: what the demo model writes under random schemas must be valid under them.

Random schemas (nested objects, lists, strings with lengths and patterns, bounded numbers, enums, anyOf, $ref), a random
temperature up to 2; every answer that ends by itself is judged by `jsonschema`, its formats included. The demo model
knows none of these schemas, so its tokens are close to random ones: only the masks keep them valid. An answer that the
length ends is counted apart; nearly all must end by themselves. Then hostile grammars, each refused or failing alone
while ordinary requests go on beside them.
"""
import concurrent.futures
import json
import os
import pathlib
import random
import sys
import threading
import time
import urllib.error
import urllib.request

import jsonschema

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from running_server import RunningServer  # noqa: E402

SCHEMAS = int(os.environ.get("SCHEMAS", "1000"))
SEED = int(os.environ.get("SCHEMA_SEED", "1"))
FORMATS = ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]
WORDS = ["name", "age", "city", "tags", "a", "b", "größe", "is ok", "q\"uote", "x"]
PATTERNS = ["^[a-z]{1,6}$", "^\\d{3}-\\d{2}$", "^(yes|no)$", "^[^x]{2}$", "^\\w+$", "^[A-Z][a-z]*( [A-Z][a-z]*)?$"]

# The draft's own formats (the class's default adds older drafts', where a time has no zone), all of them judged.
CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER
assert set(FORMATS) <= set(CHECKER.checkers), "scripts/setup.sh --tests brings the judges of the formats"


def number(rng, kind):
    schema = {"type": kind}
    low = rng.randrange(-200, 200)
    if kind == "number" and rng.random() < 0.5:
        low += rng.randrange(100) / 100
    if rng.random() < 0.6:
        schema[rng.choice(["minimum", "exclusiveMinimum"])] = low
    if rng.random() < 0.6:
        schema[rng.choice(["maximum", "exclusiveMaximum"])] = low + rng.randrange(2, 500)
    return schema


def string(rng):
    kind = rng.randrange(4)
    if kind == 0:
        low = rng.randrange(3)
        return {"type": "string", "minLength": low, "maxLength": low + rng.randrange(1, 12)}
    if kind == 1:
        return {"type": "string", "pattern": rng.choice(PATTERNS)}
    if kind == 2:
        return {"type": "string", "format": rng.choice(FORMATS)}
    return {"type": "string", "maxLength": 20}


def array(rng, depth):
    schema = {"type": "array", "items": value(rng, depth + 1), "maxItems": rng.randrange(1, 4)}
    if rng.random() < 0.3:
        schema["minItems"] = rng.randrange(schema["maxItems"] + 1)
    if rng.random() < 0.2:
        schema["prefixItems"] = [value(rng, depth + 1)]
    return schema


def obj(rng, depth):
    names = rng.sample(WORDS, rng.randrange(1, 5))
    schema = {"type": "object", "properties": {name: value(rng, depth + 1) for name in names},
              "required": [n for n in names if rng.random() < 0.6]}
    if rng.random() < 0.5:
        schema["additionalProperties"] = False
    return schema


def value(rng, depth):
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "ref"]
    if depth < 3:
        kinds += ["object", "array", "anyOf", "types"] * 2
    kind = rng.choice(kinds)
    if kind == "string":
        return string(rng)
    if kind in ("integer", "number"):
        return number(rng, kind)
    if kind in ("boolean", "null"):
        return {"type": kind}
    if kind == "enum":
        return {"enum": rng.sample(["red", 1, 2.5, None, True, [1, {"k": "v"}], "é\n"], rng.randrange(1, 5))}
    if kind == "const":
        return {"const": rng.choice(["only", 7, {"a": []}])}
    if kind == "ref":
        return {"$ref": "#/$defs/shared"}
    if kind == "anyOf":
        return {"anyOf": [value(rng, depth + 1) for _ in range(rng.randrange(1, 4))]}
    if kind == "types":
        return {"type": rng.sample(["integer", "boolean", "null"], 2)}
    return obj(rng, depth) if kind == "object" else array(rng, depth)


def schema_of(seed):
    rng = random.Random(seed)
    schema = obj(rng, 0)
    schema["$defs"] = {"shared": rng.choice([string(rng), number(rng, "integer"), {"type": "boolean"}])}
    return schema


def ask(base, body):
    request = urllib.request.Request(base + "/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as failure:
        return failure.code, json.load(failure)


def judge(base, seed):
    """'valid', 'cut' (by the length), or what is wrong."""
    rng = random.Random(f"ask {seed}")
    schema = schema_of(seed)
    thinking = rng.random() < 0.2
    status, answer = ask(base, {
        "model": "default", "temperature": rng.choice([0, 0.7, 1, 2]), "seed": seed, "max_tokens": 3000,
        "messages": [{"role": "user", "content": rng.choice(["Hello", "What is 3 + 4?", "Tell me a story"])}],
        "chat_template_kwargs": {"thinking": thinking},
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "answer", "schema": schema, "strict": rng.random() < 0.5}}})
    if status != 200:
        return f"{seed}: {status} {answer}\n{json.dumps(schema)}"
    choice = answer["choices"][0]
    if choice["finish_reason"] != "stop":
        return "cut"
    try:
        jsonschema.Draft202012Validator(schema, format_checker=CHECKER).validate(
            json.loads(choice["message"]["content"]))
    except (ValueError, jsonschema.ValidationError) as failure:
        return f"{seed}: {failure}\n{json.dumps(schema)}\n{choice['message']['content']}"
    return "valid"


def hostile_bodies():
    """What must be refused with 400, or end by itself, soon."""
    deep = {}
    for _ in range(80):
        deep = {"items": deep}
    many = "|".join(f"x[^{chr(97 + i % 26)}]*" for i in range(3000))
    schemas = [deep, {"type": "array", "minItems": 10000, "items": {"type": "array", "minItems": 10000}},
               {"type": "string", "minLength": 10**9}, {"enum": [f"word {i}" for i in range(20000)]},
               {"$ref": "#"}, {"type": "array", "items": {"type": "string", "maxLength": 10000}, "maxItems": 10000},
               {"type": "string", "pattern": "(a|a)*(a|aa)*(a|b|ab)*c"}, {"properties": {"x" * 100000: {}}}]
    bodies = [{"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": s}}} for s in schemas]
    bodies += [{"regex": r} for r in ["(a+)+$", "((a?){60}){20}[ab]*(a?){300}", "(" * 50000, "a{10000}" * 50, many,
                                      "(a|b|ab|ba|aa|bb)*c(a|b|ab){200}", "(.*a){25}", "((((a{100}){100}){100}){100})"]]
    chain = "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1} r{i + 1} | \"\"\n" for i in range(300)) + "r300 ::= [a-z]?\n"
    bodies += [{"ebnf": chain}, {"ebnf": "root ::= root \"a\" | \"b\""}]
    bodies += [{"structural_tag": {"triggers": ["a" * 400], "structures": [{"begin": "a" * 400, "schema": deep, "end": ""}]}}]
    return bodies


def hostile(base, failures):
    question = {"messages": [{"role": "user", "content": "What is 3 + 4?"}], "temperature": 0, "max_tokens": 40}
    alone = ask(base, question)[1]["choices"][0]["message"]["content"]
    done = threading.Event()
    waits = []

    def ordinary():
        while not done.is_set():
            start = time.monotonic()
            status, answer = ask(base, question)
            waits.append(time.monotonic() - start)
            if status != 200 or answer["choices"][0]["message"]["content"] != alone:
                failures.append(f"beside hostile grammars: {status} {answer}")

    others = [threading.Thread(target=ordinary) for _ in range(2)]
    for thread in others:
        thread.start()
    for body in hostile_bodies():
        start = time.monotonic()
        status, answer = ask(base, {**question, **body, "temperature": 1, "max_tokens": 60})
        seconds = time.monotonic() - start
        refused = status == 400 and answer["error"]["message"]
        if not refused and status != 200:
            failures.append(f"hostile: {status} {str(answer)[:300]}\n{str(body)[:200]}")
        if seconds > 30:
            failures.append(f"hostile: {seconds:.0f} s\n{str(body)[:200]}")
    done.set()
    for thread in others:
        thread.join()
    print(f"beside hostile grammars: {len(waits)} ordinary requests, the longest {max(waits):.2f} s")


def main():
    failures = []
    with RunningServer("--model-path", "models/demo") as server:
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            results = list(pool.map(lambda seed: judge(server.base, seed), range(SEED, SEED + SCHEMAS)))
        hostile(server.base, failures)
        for strict in (True, False):
            status, answer = ask(server.base, {
                "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 200, "response_format": {
                    "type": "json_schema", "json_schema": {"name": "x", "strict": strict, "schema": {
                        "type": "array", "items": {"type": "integer"}, "maxItems": 3, "uniqueItems": True}}}})
            if strict and (status != 400 or "uniqueItems" not in answer["error"]["message"]):
                failures.append(f"uniqueItems: {status} {answer}")
            if not strict and (status != 200 or
                               not isinstance(json.loads(answer["choices"][0]["message"]["content"]), list)):
                failures.append(f"uniqueItems without strict: {status} {answer}")
        status, answer = ask(server.base, {"messages": [{"role": "user", "content": "How are you?"}], "tool_choice": "required",
                                           "tools": [{"type": "function", "function": {
                                               "name": "note", "parameters": {"type": "object", "properties": {
                                                   "n": {"type": "integer"}}, "required": ["n"]}}}], "max_tokens": 200})
        call = answer["choices"][0]["message"]["tool_calls"][0]["function"] if status == 200 else {}
        if call.get("name") != "note" or not isinstance(json.loads(call["arguments"])["n"], int):
            failures.append(f"tool_choice required: {status} {answer}")
    wrong = [r for r in results if r not in ("valid", "cut")]
    for failure in wrong + failures:
        print("  " + failure)
    valid, cut = results.count("valid"), results.count("cut")
    good = not wrong and not failures and valid >= 0.98 * len(results)
    print(f"{valid} valid, {cut} cut by the length, {len(wrong)} wrong of {len(results)} schemas")
    print(f"{int(good)} passed, {int(not good)} failed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
