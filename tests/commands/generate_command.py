"""fathom generate: a file of requests in, a file of answers out."""
import json
import pathlib
import re
import tempfile

from binary import DEMO
from runner import check, equal, test

SUMS = [(a, b) for a in range(3, 9) for b in range(4, 9)]


def chat(question, **fields):
    return {"messages": [{"role": "user", "content": question}], "temperature": 0, **fields}


def generate(binary, lines, *flags):
    """(exit code, answers, standard error) of the lines, which are objects or text."""
    text = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines)
    code, out, err = binary.run("generate", *DEMO, "--input", "-", *flags, input=text)
    return code, [json.loads(line) for line in out.splitlines()], err


def content(answer):
    equal(answer["response"]["status_code"], 200, "status")
    return answer["response"]["body"]["choices"][0]["message"]["content"]


@test
def answers_come_in_the_order_of_the_lines(binary):
    # More requests than slots, and long ones first, so that the order of ending is another.
    lines = [chat("Tell me a story about a fox named Mia.", max_tokens=60)]
    lines += [chat(f"What is {a} + {b}?") for a, b in SUMS]
    code, answers, err = generate(binary, lines, "--max-running-requests", 4)
    equal(code, 0, err)
    equal([a["line"] for a in answers], list(range(1, len(lines) + 1)), "lines")
    equal(answers[0]["response"]["body"]["usage"]["completion_tokens"], 60)
    for (a, b), answer in zip(SUMS, answers[1:]):
        equal(content(answer), f"{a} + {b} = {a + b}.")


@test
def every_kind_of_request_is_known_by_its_fields(binary):
    prompt = "What is 7 + 5?"
    code, answers, err = generate(binary, [
        {"prompt": prompt, "max_tokens": 4, "temperature": 0},
        {"text": prompt, "sampling_params": {"max_new_tokens": 4, "temperature": 0}},
        {"input_ids": [5, 6, 7], "sampling_params": {"max_new_tokens": 3, "temperature": 0, "ignore_eos": True}},
        chat(prompt, stream=True),
    ])
    equal(code, 0, err)
    bodies = [a["response"]["body"] for a in answers]
    equal(bodies[0]["object"], "text_completion")
    equal(bodies[1]["text"], bodies[0]["choices"][0]["text"], "the same prompt through both endpoints")
    equal(len(bodies[2]["output_ids"]), 3)
    equal(content(answers[3]), "7 + 5 = 12.", "an answer whose line asks for a stream is whole")


@test
def openais_batch_form_is_taken_with_its_ids(binary):
    batch = {"method": "POST", "url": "/v1/chat/completions"}
    code, answers, err = generate(binary, [
        {"custom_id": "second", **batch, "body": chat("What is 2 + 9?")},
        {"custom_id": "first", **batch, "body": chat("What is 7 + 5?", stream=True)},
    ])
    equal(code, 0, err)
    equal([a["custom_id"] for a in answers], ["second", "first"])
    equal([content(a) for a in answers], ["2 + 9 = 11.", "7 + 5 = 12."])


@test
def a_wrong_line_fails_alone(binary):
    lines = [
        "{not json", "[1]", {"question": "?"}, {"custom_id": "no url", "body": {}},
        {"custom_id": "aborter", "url": "/abort_request", "body": {"abort_all": True}},
        {"custom_id": "getter", "method": "GET", "url": "/generate", "body": {"text": "a"}},
        chat("Hello", temperature="hot"), {"input_ids": [10**9]}, "", chat("What is 7 + 5?"),
    ]
    code, answers, err = generate(binary, lines)
    equal(code, 1, err)
    equal([a["response"]["status_code"] for a in answers], [400] * 8 + [200])
    equal(answers[8]["line"], 10, "blank lines are counted, not answered")
    equal(content(answers[8]), "7 + 5 = 12.")
    for answer, word in zip(answers, ["JSON object", "JSON object", "expected one of", "url", "/abort_request", "GET",
                                      "temperature", "input_ids"]):
        message = answer["response"]["body"]["error"]["message"]
        check(word in message, f"{message!r} does not speak of {word!r}")
    check("8 of 9 requests failed" in err, err)


@test
def files_are_read_and_written(binary):
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder, "in.jsonl"), pathlib.Path(folder, "out.jsonl")
        source.write_text(json.dumps(chat("What is 7 + 5?")))  # no newline at the end
        code, out, err = binary.run("generate", *DEMO, "--input", source, "--output", target)
        equal(code, 0, err)
        equal(out, "", "standard output")
        check("generate: 1 of 1 requests" in err, f"no progress in {err!r}")
        equal(content(json.loads(target.read_text())), "7 + 5 = 12.")
        source.write_text("")
        code, _, err = binary.run("generate", *DEMO, "--input", source, "--output", target)
        equal((code, target.read_text()), (0, ""), err)


@test
def in_a_terminal_a_bar_grows(binary):
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder, "in.jsonl"), pathlib.Path(folder, "out.jsonl")
        story = json.dumps(chat("Tell me a story about a fox named Mia.", max_tokens=150))
        source.write_text((story + "\n") * 60)
        with binary.terminal("generate", *DEMO, "--input", source, "--output", target, "--max-running-requests", 2,
                             "--disable-radix-cache") as terminal:
            equal(terminal.exit_code(), 0, terminal.text)
        shares = [int(share) for share in re.findall(r"generate \[#*\.*\] +(\d+) %", terminal.text)]
        check(len(shares) >= 2 and shares == sorted(shares), terminal.text)
        check("generate: 60 of 60 requests" in terminal.text, terminal.text)
        equal(len(target.read_text().splitlines()), 60)


@test
def files_that_cannot_be_used_are_named(binary):
    for flags, name in [(("--input", "/nowhere.jsonl"), "/nowhere.jsonl"),
                        (("--input", "-", "--output", "/nowhere/out"), "/nowhere/out"),
                        (("--input", "-", "--output", "/dev/full"), "/dev/full")]:
        code, _, err = binary.run("generate", *DEMO, *flags, input=json.dumps(chat("Hello", max_tokens=1)) + "\n")
        equal(code, 1, err)
        check(f"fathom generate: cannot" in err and name in err, err)


@test
def a_line_gets_the_same_answer_alone_and_among_others(binary):
    mine = chat("Tell me a story about a fox named Mia.", temperature=1.0, seed=11, max_tokens=40)
    alone = content(generate(binary, [mine])[1][0])
    others = [chat(f"What is {a} + {b}?", temperature=1.0, seed=a) for a, b in SUMS]
    crowd = generate(binary, others + [mine] + others, "--disable-radix-cache")[1]
    equal(content(crowd[len(others)]), alone)


@test
def a_random_seed_belongs_to_the_line(binary):
    lines = [{"prompt": "a", "max_tokens": 24, "temperature": 2, "n": 2} for _ in range(12)]

    def drawn(*flags):
        code, answers, err = generate(binary, lines, *flags)
        equal(code, 0, err)
        return [[c["text"] for c in a["response"]["body"]["choices"]] for a in answers]

    first = drawn("--random-seed", 7)
    check(len({text for texts in first for text in texts}) > 20, first)
    equal(drawn("--random-seed", 7, "--max-running-requests", 2), first)
    check(drawn("--random-seed", 8) != first, "another seed")
