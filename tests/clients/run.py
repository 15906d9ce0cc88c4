"""Tests a running server with the official openai and anthropic clients and with raw HTTP.

  run.py                       starts build/release/fathom on models/demo for the test
  run.py URL [--api-key KEY]   tests the server at URL, which must serve the demo model and nobody else
Options: --only TEXT runs the tests whose name holds TEXT; --binary FILE is the binary to start.
The last line is "N passed, N failed"; the exit code is 1 if any failed.
"""
import argparse
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import anthropic_client  # noqa: E402, F401
import bad_input  # noqa: E402, F401
import chat_client  # noqa: E402, F401
import completions_client  # noqa: E402, F401
import connections  # noqa: E402, F401
import limits  # noqa: E402, F401
import logit_processors  # noqa: E402, F401
import native_api  # noqa: E402, F401
import openapi_client  # noqa: E402, F401
import responses_client  # noqa: E402, F401
import runner  # noqa: E402
import running_server  # noqa: E402
import turns  # noqa: E402, F401
import vanishing_clients  # noqa: E402, F401
from target import Target  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?")
    parser.add_argument("--api-key", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--binary", default=str(running_server.BINARY))
    args = parser.parse_args()
    if args.url:
        return 1 if runner.run_all(Target(args.url, args.api_key), only=args.only) else 0
    key = args.api_key or "a-key-for-the-test"
    flags = ("--model-path", "models/demo", "--api-key", key)
    with running_server.RunningServer(*flags, binary=args.binary) as server:
        failed = runner.run_all(Target(server.base, key), only=args.only)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
