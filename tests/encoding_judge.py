#!/usr/bin/env python3
"""Holds Fathom's prompt encodings for V3.2 and V4 to DeepSeek's published encoders.

    tests/encoding_judge.py --encoders DIR [--tool build/release/text_render_bench] [--random 20000] [--write]

DIR holds encoding_dsv32.py and encoding_dsv4.py as the checkpoints ship them (encoding/ of the model's
repository; other servers carry copies). They are not ours to keep, so this runs by hand: it compares random
conversations, and with --write renews tests/chat_encodings/cases.json, our own conversations with the prompts
that those encoders make of them, which the unit tests check. Exit status 1 if anything differs.
"""

import argparse
import copy
import importlib.util
import json
import pathlib
import random
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
CASES = REPOSITORY / "tests/chat_encodings/cases.json"
WORDS = ["Hello", "中文", "a\nb", "🙂", '"quoted"', "\\", "x < y", "", "</think>", "the end.\n\n", "{}", "\t"]


class Conversations:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def chance(self, share):
        return self.random.random() < share

    def text(self, least=0):
        words = [self.random.choice(WORDS) for _ in range(self.random.randint(least, 4))]
        return " ".join(words) or ("x" if least else "")

    def value(self, depth=0):
        kind = self.random.randint(0, 7 if depth < 2 else 5)
        if kind == 0:
            return self.text()
        if kind == 1:
            return self.random.choice([0, -1, 17, 2**63, -(2**70), 10**30])
        if kind == 2:
            return self.random.choice([0.5, -0.0, 1e22, 1e-7, 3.14, 100000.0, 1.0])
        if kind == 3:
            return self.random.choice([True, False, None])
        if kind in (4, 5):
            return self.random.choice(["plain", "12", "true"])
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.random.randint(0, 3))]
        return {self.text(): self.value(depth + 1) for _ in range(self.random.randint(0, 3))}

    def tools(self):
        return [
            {
                "type": "function",
                "function": {
                    "name": f"tool_{i}",
                    "description": self.text(),
                    "parameters": {
                        "type": "object",
                        "properties": {"a": {"type": "string", "description": self.text()}, "n": {"type": "number"}},
                    },
                },
            }
            for i in range(self.random.randint(1, 3))
        ]

    def calls(self):
        calls = []
        for i in range(self.random.randint(1, 3)):
            arguments = {self.random.choice("abcdé"): self.value() for _ in range(self.random.randint(0, 3))}
            function = {"name": f"tool_{i}", "arguments": json.dumps(arguments, ensure_ascii=self.chance(0.5))}
            calls.append({"id": f"call_{i}", "type": "function", "function": function})
        return calls

    def messages(self, v4):
        messages = []
        if self.chance(0.5):
            messages.append({"role": "system", "content": self.text()})
        if v4 and self.chance(0.2):
            messages.append({"role": "latest_reminder", "content": self.text(1)})
        for turn in range(self.random.randint(1, 4)):
            role = "developer" if self.chance(0.15) else "user"
            message = {"role": role, "content": self.text(1 if role == "developer" else 0)}
            if role == "developer" and self.chance(0.5):
                message["tools"] = self.tools()
            if role == "developer" and self.chance(0.3):
                message["response_format"] = {"type": "object", "title": self.text()}
            if v4 and self.chance(0.1):
                message["task"] = self.random.choice(["action", "query", "authority", "domain", "title", "read_url"])
            messages.append(message)
            if v4 and role == "user" and self.chance(0.1) and "task" not in message:
                messages.append({"role": "user", "content": self.text()})
            while self.chance(0.4):
                calls = self.calls()
                assistant = {"role": "assistant", "content": self.text() or None, "tool_calls": calls}
                if self.chance(0.6):
                    assistant["reasoning_content"] = self.text()
                messages.append(assistant)
                results = [
                    {"role": "tool", "tool_call_id": call["id"], "content": self.text()} for call in calls
                ]
                if v4 and self.chance(0.3):
                    self.random.shuffle(results)
                messages += results
            if self.chance(0.7):
                assistant = {"role": "assistant", "content": self.text()}
                if self.chance(0.7):
                    assistant["reasoning_content"] = self.text(1)
                messages.append(assistant)
        return messages

    def case(self):
        encoding = self.random.choice(["deepseek-v32", "deepseek-v4-preview"])
        v4 = encoding != "deepseek-v32"
        variables = {"messages": self.messages(v4)}
        if self.chance(0.4):
            variables["tools"] = self.tools()
        if self.chance(0.2):
            variables["response_format"] = {"type": "object", "properties": {"a": {"enum": [self.text(), 1.5]}}}
        if self.chance(0.7):
            variables["thinking"] = self.chance(0.7)
        if self.chance(0.2):
            variables["drop_thinking"] = self.chance(0.5)
        if v4 and self.chance(0.3):
            variables["reasoning_effort"] = self.random.choice(["high", "max"])
        return {"encoding": encoding, "variables": variables}


def load(folder, name):
    spec = importlib.util.spec_from_file_location(name, pathlib.Path(folder) / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published(encoders, case):
    """The prompt, or None where the encoder refuses."""
    variables = copy.deepcopy(case["variables"])
    messages = variables["messages"]
    if messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": ""})
    if variables.get("tools"):
        messages[0]["tools"] = variables["tools"]
    if variables.get("response_format"):
        messages[0].setdefault("response_format", variables["response_format"])
    mode = "thinking" if variables.get("thinking") else "chat"
    drop = variables.get("drop_thinking", True)
    try:
        if case["encoding"] == "deepseek-v32":
            return encoders[0].encode_messages(messages, thinking_mode=mode, drop_thinking=drop)
        return encoders[1].encode_messages(
            messages, thinking_mode=mode, drop_thinking=drop, reasoning_effort=variables.get("reasoning_effort")
        )
    except Exception:
        return None


def known_difference(case):
    """V3.2's encoder drops a developer's early turn from the list, and then fails for want of it; V4's loses
    the task of a user's message that joins a turn before it."""
    variables = case["variables"]
    messages = variables["messages"]
    if case["encoding"] == "deepseek-v32":
        users = [message["role"] for message in messages if message["role"] in ("user", "developer")]
        return variables.get("thinking") and "developer" in users[:-1]
    return any(
        before["role"] in ("user", "tool") and message["role"] == "user" and "task" in message
        for before, message in zip(messages, messages[1:])
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoders", required=True)
    parser.add_argument("--tool", default=str(REPOSITORY / "build/release/text_render_bench"))
    parser.add_argument("--random", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    encoders = load(options.encoders, "encoding_dsv32"), load(options.encoders, "encoding_dsv4")

    if options.write:
        cases = json.loads(CASES.read_text())
        for case in cases:
            if case["encoding"] == "deepseek-v4":
                continue  # its texts are the preview's, but for the efforts
            case["prompt"] = published(encoders, case)
        CASES.write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")

    conversations = Conversations(options.seed)
    cases = [conversations.case() for _ in range(options.random)]
    lines = "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in cases)
    answers = subprocess.run([options.tool], input=lines, capture_output=True, text=True, check=True).stdout
    equal = refused = skipped = different = 0
    for case, line in zip(cases, answers.splitlines(), strict=True):
        answer = json.loads(line)
        expected = published(encoders, case)
        if known_difference(case):
            skipped += 1
        elif answer.get("output") == expected:
            equal += 1
            refused += expected is None
        else:
            different += 1
            if different <= 3:
                print(json.dumps(case, ensure_ascii=False), "\n  expected", repr(expected), "\n  got", answer)
    print(f"{equal} equal ({refused} of them refused by both), {skipped} set aside, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
