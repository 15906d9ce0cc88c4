#!/usr/bin/env python3
"""Writes src/text/tokenizer/unicode_ranges.inc: the general category (L, M, N, P, S) of every code point, as
the regex engine of Hugging Face `tokenizers` sees it.

The pre-tokenizer must split as the tokenizer's authors' did, whatever Unicode version the system's own
libraries have, so the table comes from the engine that is the judge of our output. Run it again when that
engine moves to a new Unicode version:

    python3 tests/text_tokenizer/make_unicode_classes.py > src/text/tokenizer/unicode_ranges.inc
"""
import tokenizers
from tokenizers import Regex, pre_tokenizers

BLOCK = 0x1000


def members(pattern):
    """The code points that match a one-character pattern."""
    remove = pre_tokenizers.Split(Regex(pattern), "removed")
    found = set()
    for start in range(0, 0x110000, BLOCK):
        text = "".join(chr(c) for c in range(start, start + BLOCK) if not 0xD800 <= c < 0xE000)
        if text:
            kept = {c for piece, _ in remove.pre_tokenize_str(text) for c in piece}
            found |= {ord(c) for c in text if c not in kept}
    return found


def ranges(category):
    """(first, last, name) of each run of code points with one category."""
    runs = []
    for code_point in sorted(category):
        name = category[code_point]
        if runs and runs[-1][1] == code_point - 1 and runs[-1][2] == name:
            runs[-1][1] = code_point
        else:
            runs.append([code_point, code_point, name])
    return runs


def main():
    category = {}
    for name in "LMNPS":
        for code_point in members(r"\p{%s}" % name):
            assert code_point not in category, hex(code_point)
            category[code_point] = name
    version = tokenizers.__version__
    print(f"// Made by tests/text_tokenizer/make_unicode_classes.py with tokenizers {version}.")
    items = [f"{{0x{a:X}, 0x{b:X}, k{n}}}," for a, b, n in ranges(category)]
    line = ""
    for item in items:
        if line and len(line) + 1 + len(item) > 110:
            print(line)
            line = ""
        line += (" " if line else "") + item
    print(line)


if __name__ == "__main__":
    main()
