#!/usr/bin/env python3
"""Speed of Fathom's tokenizer beside Hugging Face `tokenizers`, on one thread, with DeepSeek-V3's tokenizer.

    tests/text_tokenizer/speed.py --deepseek-dir DIR [--tool build/release/text_tokenize_bench]

Texts: English from /usr/share/doc, C and C++ headers from /usr/include, Chinese from the Debian package
manpages-zh (fetched with apt-get download). Both encode the same chunks of 4 KiB and 64 KiB, cut at line
breaks; speeds are MB of UTF-8 a second of the thread's CPU time, so that other work on the machine disturbs
them little.
"""
import argparse
import gzip
import os
import pathlib
import re
import statistics
import subprocess
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer  # noqa: E402  (reads the two variables)

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
TEXT_BYTES = 4 << 20
PEER_BYTES = 256 << 10


def read(path):
    data = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
    return data.decode("utf-8", "ignore")


def collect(paths, keep=lambda line: True):
    """The kept lines of the files, up to TEXT_BYTES."""
    lines, size = [], 0
    for path in sorted(paths):
        if not path.is_file() or path.is_symlink():
            continue
        for line in read(path).splitlines(keepends=True):
            if keep(line):
                lines.append(line)
                size += len(line.encode())
        if size > TEXT_BYTES:
            break
    return "".join(lines)


def chinese(folder):
    subprocess.run(["apt-get", "download", "-qq", "manpages-zh"], cwd=folder, check=True,
                   stderr=subprocess.DEVNULL)
    package = next(pathlib.Path(folder).glob("*.deb"))
    subprocess.run(["dpkg", "-x", package.name, "zh"], cwd=folder, check=True)
    pages = pathlib.Path(folder).glob("zh/usr/share/man/zh_CN/**/*.gz")
    return collect(pages, re.compile("[\u4e00-\u9fff]").search)


def cut(text, size):
    """As the tool cuts: at the last line break before `size` bytes."""
    data, start = text.encode(), 0
    while start < len(data):
        end = min(start + size, len(data))
        line_break = data.rfind(b"\n", start, end)
        if end < len(data) and line_break >= start:
            end = line_break + 1
        yield data[start:end].decode("utf-8", "ignore")
        start = end


def peer_speed(tokenizer, text, size, repetitions):
    chunks = list(cut(text, size))
    total = sum(len(chunk.encode()) for chunk in chunks)
    speeds = []
    for _ in range(repetitions):
        start = time.thread_time()
        for chunk in chunks:
            tokenizer.encode(chunk, add_special_tokens=False)
        speeds.append(total / 1e6 / (time.thread_time() - start))
    return speeds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", default=str(REPOSITORY / "build/release/text_tokenize_bench"))
    parser.add_argument("--deepseek-dir", required=True, help="a folder with DeepSeek-V3's tokenizer.json")
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    peer = Tokenizer.from_file(str(pathlib.Path(arguments.deepseek_dir) / "tokenizer.json"))
    with tempfile.TemporaryDirectory() as folder:
        texts = {
            "english": collect(pathlib.Path("/usr/share/doc").rglob("*.gz")),
            "code": collect(pathlib.Path("/usr/include").rglob("*.h*")),
            "chinese": chinese(folder),
        }
        for name, text in texts.items():
            path = pathlib.Path(folder) / name
            path.write_text(text, encoding="utf-8")
            run = subprocess.run([arguments.tool, "speed", arguments.deepseek_dir, str(arguments.repetitions),
                                  str(path)], stdout=subprocess.PIPE, check=True, text=True)
            for line in run.stdout.splitlines():
                fields = dict(field.split("=", 1) for field in line.split() if "=" in field)
                size = int(fields["chunk"].removesuffix("KiB")) << 10
                speeds = peer_speed(peer, text[:PEER_BYTES], size, arguments.repetitions)
                median = statistics.median(speeds)
                ours = float(fields["median"])
                print(f"{name:8} {fields['bytes']:>8} bytes, chunks of {size >> 10:2} KiB: {ours:6.1f} MB/s "
                      f"[{fields['min']}-{fields['max']}], peer {median:.2f} [{min(speeds):.2f}-"
                      f"{max(speeds):.2f}], {ours / median:.1f} times", flush=True)


if __name__ == "__main__":
    main()
