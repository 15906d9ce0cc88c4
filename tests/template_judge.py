#!/usr/bin/env python3
"""Holds Fathom's chat templates to Hugging Face's: equal text from every template, errors where it has them.

    tests/template_judge.py [--tool build/release/text_render_bench] [--random 4000] [--seed 1]

The judge is jinja2, in the environment that `transformers` itself makes, or one like it where that is not
installed. Renders the demo model's template and templates in the formats of DeepSeek V2 to V3.2-Exp
(tests/chat_templates) on random conversations (chat_corpus.py), and random templates from a grammar
(template_corpus.py). Exit status 1 if anything differs.

Two things are set aside and counted: results with Python integers beyond 64 bits, which Fathom refuses, and
printed addresses of Python objects. Takes about 30 seconds.
"""

import argparse
import datetime
import json
import pathlib
import re
import subprocess
import sys

import jinja2.ext
import jinja2.sandbox
import jinja2.utils

from chat_corpus import Conversations
from template_corpus import VARIABLES, Templates

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
ADDRESS = re.compile(
    r"<[\w. ]*(object|function|method|generator|class|Macro|built-in|dict_\w+iterator)[^>]*>|0x[0-9a-f]{8}"
)


def like_transformers():
    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller):
            return caller()

    class Namespace(jinja2.utils.Namespace):
        def __init__(*args, **kwargs):
            attributes = dict(*args[1:], **kwargs)
            for name in attributes:
                Namespace.check(name)
            jinja2.utils.Namespace.__init__(args[0], attributes)

        def __setitem__(self, name, value):
            Namespace.check(name)
            jinja2.utils.Namespace.__setitem__(self, name, value)

        @staticmethod
        def check(name):
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError(name)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "namespace": Namespace,
        "strftime_now": lambda form: datetime.datetime.now().strftime(form),
    }
    return environment


try:
    from transformers.utils.chat_template_utils import _compile_jinja_template

    ENVIRONMENT = _compile_jinja_template("").environment
except ImportError:
    ENVIRONMENT = like_transformers()


class Judge:
    def __init__(self):
        self.compiled = {}

    def template(self, source):
        if source not in self.compiled:
            try:
                self.compiled[source] = ENVIRONMENT.from_string(source)
            except Exception as error:  # also SyntaxError, from the Python that Jinja writes
                self.compiled[source] = error
        return self.compiled[source]

    def render(self, case):
        template = self.template(case["template"])
        if isinstance(template, Exception):
            return None, f"{type(template).__name__}: {template}"
        try:
            text = template.render(**json.loads(json.dumps(case["variables"])))
            text.encode("utf-8")
            return text, None
        except Exception as error:
            return None, f"{type(error).__name__}: {error}"


def corpus(arguments):
    conversations = Conversations(arguments.seed)
    sources = [
        REPOSITORY / "models/demo/chat_template.jinja",
        *sorted((REPOSITORY / "tests/chat_templates").glob("*.jinja")),
    ]
    for path in sources:
        for _ in range(arguments.conversations):
            yield {"template": path.read_text(), "variables": conversations.variables()}
    templates = Templates(arguments.seed)
    for _ in range(arguments.random):
        yield {"template": templates.template(), "variables": VARIABLES}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tool",
        default=REPOSITORY / "build/release/text_render_bench",
        help="the text_render_bench executable",
    )
    parser.add_argument("--random", type=int, default=4000, help="random templates")
    parser.add_argument(
        "--conversations", type=int, default=100, help="conversations for each model's template"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=10, help="differences to print")
    arguments = parser.parse_args()

    cases = list(corpus(arguments))
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    run = subprocess.run([arguments.tool], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    answers = [json.loads(line) for line in run.stdout.decode().split("\n") if line]
    if len(answers) != len(cases):
        sys.exit(f"{len(answers)} answers to {len(cases)} templates")
    judge = Judge()
    equal_text = equal_errors = beyond = addresses = different = 0
    for case, answer in zip(cases, answers):
        text, error = judge.render(case)
        if text is None and "error" in answer:
            equal_errors += 1
        elif text is not None and answer.get("output") == text:
            equal_text += 1
        elif text is not None and "64-bit" in answer.get("error", ""):
            beyond += 1
        elif text is not None and ADDRESS.search(text):
            addresses += 1
        else:
            different += 1
            if different <= arguments.show:
                print(
                    f"template: {case['template']!r}\n  jinja2: {text!r} {error or ''}\n"
                    f"  fathom: {answer.get('output')!r} {answer.get('error', '')}"
                )
                if case["variables"] is not VARIABLES:
                    print(f"  variables: {json.dumps(case['variables'], ensure_ascii=False)}")
    print(
        f"{equal_text} texts equal, {equal_errors} errors on both sides, {beyond} beyond 64 bits, "
        f"{addresses} with addresses, {different} different"
    )
    sys.exit(1 if different or equal_text < len(cases) // 3 else 0)


if __name__ == "__main__":
    main()
