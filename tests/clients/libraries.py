"""Other projects' client libraries against the demo model: langchain-deepseek and litellm; openai and the AI SDK of npm.

The last line is "N passed, N failed"; the exit code is 1 if any failed.
"""
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import langchain_client  # noqa: E402, F401
import litellm_client  # noqa: E402, F401
import runner  # noqa: E402
from running_server import RunningServer  # noqa: E402
from target import Target  # noqa: E402

KEY = "a-key-for-the-test"
NODE_SUITES = ("openai.mjs", "ai_sdk.mjs")


def run_node(script, base):
    """(passed, failed) of a suite."""
    run = subprocess.run(["node", script, base, KEY], cwd=HERE / "node", capture_output=True, text=True, timeout=300)
    counts = re.search(r"^(\d+) passed, (\d+) failed$", run.stdout, re.M)
    print(run.stdout[:counts.start()] if counts else run.stdout + run.stderr, end="", flush=True)
    return (int(counts[1]), int(counts[2])) if counts else (0, 1)


def main():
    with RunningServer("--model-path", "models/demo", "--api-key", KEY) as server:
        failed = runner.run_all(Target(server.base, KEY))
        passed = len(runner.TESTS) - failed
        if shutil.which("node") and (HERE / "node/node_modules").is_dir():
            for script in NODE_SUITES:
                more = run_node(script, server.base)
                passed, failed = passed + more[0], failed + more[1]
        else:
            print(f"skipped: {', '.join(NODE_SUITES)}: scripts/setup.sh --tests could not get node and its packages")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
