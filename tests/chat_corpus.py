"""Random conversations for template_judge.py, from a fixed seed."""

import random

TEXTS = [
    "",
    "a",
    "Hello, world!",
    "  padded\n",
    "line one\nline two\n\n",
    "日本語のテキスト",
    "naïve café Straße ΣΑΣ",
    "🙂👍🏽 emoji",
    "it's \"quoted\" \\ back",
    "<b>&amp;</b>",
    "tab\there",
    "x" * 40,
    "</think>\n\nanswer",
    "İstanbul ﬁne ǅ",
    "a,b,,c",
    "42",
    "-7",
    "3.50",
    "1e3",
    "0x1f",
    " 12 ",
    "True",
    "a-b (c) [d] <e> {f}",
    "mixed CASE Words",
    "\u00a0nbsp\u2003em",
    "line\rcarriage\r\nboth",
    "e\u0301 combining",
    "{{ not code }}",
    "{% raw %}",
]


class Conversations:
    """Messages with tools, calls and results, in and out of the expected order."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def text(self):
        return " ".join(self.random.choice(TEXTS) for _ in range(self.random.randint(1, 3)))

    def json_value(self, depth=0):
        pick = self.random.randint(0, 7 if depth < 3 else 5)
        if pick == 6:
            return [self.json_value(depth + 1) for _ in range(self.random.randint(0, 3))]
        if pick == 7:
            return {
                self.random.choice(["a", "b", "type", "items", "名前"]): self.json_value(depth + 1)
                for _ in range(self.random.randint(0, 3))
            }
        return [
            None,
            True,
            self.random.randint(-(10**6), 10**6),
            self.random.choice([0.5, 1e20, 1e-7, 3.0, -0.0]),
            self.text(),
            self.random.choice(TEXTS),
        ][pick]

    def tool(self):
        function = {
            "name": self.random.choice(["get_weather", "search", "計算"]),
            "description": self.text(),
            "parameters": {"type": "object", "properties": self.json_value(), "required": ["a"]},
        }
        return {"type": "function", "function": function}

    def call(self):
        arguments = '{"city": "Zürich"}' if self.random.random() < 0.6 else {"city": "Zürich", "n": 1.0}
        return {
            "id": "call_1",
            "type": "function",
            "function": {"name": self.random.choice(["get_weather", "search"]), "arguments": arguments},
        }

    def message(self):
        role = self.random.choice(
            ["system", "user", "user", "assistant", "assistant", "tool", "tool", "developer"]
        )
        message = {"role": role, "content": self.text()}
        if role == "assistant":
            if self.random.random() < 0.3:
                message["tool_calls"] = [self.call() for _ in range(self.random.randint(1, 3))]
                if self.random.random() < 0.7:
                    message["content"] = None
            elif self.random.random() < 0.4:
                message["content"] = "<think>" + self.text() + "</think>" + self.text()
            if self.random.random() < 0.2:
                message["prefix"] = True
        if role == "user" and self.random.random() < 0.1:
            message["content"] = [{"type": "text", "text": self.text()}, {"type": "image", "url": "x"}]
        return message

    def variables(self):
        variables = {
            "messages": [self.message() for _ in range(self.random.randint(0, 7))],
            "bos_token": "<｜begin▁of▁sentence｜>",
            "eos_token": "<｜end▁of▁sentence｜>",
            "add_generation_prompt": self.random.random() < 0.7,
        }
        if self.random.random() < 0.4:
            variables["tools"] = [self.tool() for _ in range(self.random.randint(0, 3))]
        if self.random.random() < 0.1:
            variables["tools"] = None
        if self.random.random() < 0.4:
            variables["thinking"] = self.random.random() < 0.5
        return variables
