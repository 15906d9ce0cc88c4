#!/usr/bin/env python3
"""Where a decode step goes: show.py FILE [GPU] [--steps], of what record.cc wrote.

A kernel's part of a step is what the step's end moves by with it: from the end of whatever ended last before it
to its own end. Kernels overlap (one brings its weights while those before it still run), so durations say little.
Steps begin with the kernel that resolves tokens. --steps: the last whole step, kernel by kernel.
"""
import collections
import re
import subprocess
import sys


def read(path, gpu):
    rows = []
    for line in open(path):
        of, start, duration, ctas, name = line.rstrip("\n").split(" ", 4)
        if of == gpu:
            rows.append([float(start), float(start) + float(duration), int(ctas), name])
    mangled = sorted({row[3] for row in rows})
    plain = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    names = {}
    for before, after in zip(mangled, plain.split("\n")):
        after = re.sub(r"fathom::|\(anonymous namespace\)::|void |(ops|dist|engine)::cuda::", "", after)
        names[before] = after.split("(")[0][:90]
    for row in rows:
        row[3] = names[row[3]]
    return rows


def main():
    words = [word for word in sys.argv[1:] if word != "--steps"]
    if not words:
        sys.exit(__doc__)
    rows = read(words[0], words[1] if len(words) > 1 else "0")
    begins = [i for i, row in enumerate(rows) if "resolve" in row[3]][-12:]
    if len(begins) < 3:
        sys.exit("no whole decode steps on that GPU")
    if "--steps" in sys.argv:
        first, last = begins[-3], begins[-2]
        origin = end = rows[first][0]
        for start, stop, ctas, name in rows[first:last]:
            print(f"{start - origin:9.2f} us, {stop - start:7.2f} us long, part {stop - end:7.2f}  {ctas:5d} CTAs  {name}")
            end = max(end, stop)
        return
    parts, calls = collections.Counter(), collections.Counter()
    steps = len(begins) - 2
    end = rows[begins[0]][0]
    for start, stop, _, name in rows[begins[0]:begins[steps]]:
        parts[name] += stop - end
        calls[name] += 1
        end = max(end, stop)
    print(f"{sum(parts.values()) / steps:.1f} us a step, mean of {steps}")
    for name, part in parts.most_common():
        print(f"{part / steps:8.1f} us  {calls[name] / steps:6.1f} of {part / calls[name]:7.2f} us  {name}")


if __name__ == "__main__":
    main()
