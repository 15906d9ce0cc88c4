"""The security checklist of docs/security.md, line by line, against servers started for the purpose.

  run.py [--only TEXT]         runs the tests whose name holds TEXT

A test is called line_NN_...; every line of the checklist must have one. What only a unit test can bring about (a fault of
the device, allocations that fail) is run from the room's test binary. The last line is "N passed, N failed".
"""
import argparse
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "clients")]

import abuse  # noqa: E402, F401
import access  # noqa: E402, F401
import life  # noqa: E402, F401
import runner  # noqa: E402

LINES = 16


class Nobody:
    """The tests start their own servers."""

    @staticmethod
    def abort_all():
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    tested = {int(number) for test in runner.TESTS for number in re.findall(r"^line_(\d\d)_", test.__name__)}
    page = (HERE.parent.parent / "docs/security.md").read_text()
    lines = [int(number) for number in re.findall(r"^\| (\d+) \|", page, re.M)]
    listed = {number for number in lines if lines.count(number) == 2}  # what holds, and its tests
    named = {f"line_{int(number):02d}_{name}" for number, names in re.findall(r"^\| (\d+) \| (`\w+`(?:, `\w+`)*) \|$", page, re.M)
             for name in re.findall(r"\w+", names)}
    wanted = set(range(1, LINES + 1))
    if tested != wanted or listed != wanted:
        print(f"lines without a test: {sorted(wanted - tested)}; not in docs/security.md: {sorted(wanted - listed)}")
        print("0 passed, 1 failed")
        return 1
    tests = {test.__name__ for test in runner.TESTS}
    if named != tests:
        print(f"tests and the list in docs/security.md differ: {sorted(named ^ tests)}")
        print("0 passed, 1 failed")
        return 1
    return 1 if runner.run_all(Nobody(), only=args.only) else 0


if __name__ == "__main__":
    sys.exit(main())
