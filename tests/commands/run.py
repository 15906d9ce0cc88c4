"""Tests `fathom serve`, `generate`, `chat` and `bench` as a user runs them, on the demo model.

Options: --only TEXT runs the tests whose name holds TEXT; --binary FILE is the binary to run.
The last line is "N passed, N failed"; the exit code is 1 if any failed.
"""
import argparse
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "clients")]

import bench_command  # noqa: E402, F401
import chat_command  # noqa: E402, F401
import generate_command  # noqa: E402, F401
import runner  # noqa: E402
import running_server  # noqa: E402
import serve_command  # noqa: E402, F401
from binary import Binary  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--binary", default=str(running_server.BINARY))
    args = parser.parse_args()
    return 1 if runner.run_all(Binary(args.binary), seconds_each=120.0, only=args.only) else 0


if __name__ == "__main__":
    sys.exit(main())
