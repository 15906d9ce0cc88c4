"""JSON Schema's official test suite (draft 2020-12) against the grammars of constrained output.

The suite comes with the sources of the `jsonschema` package, fetched from PyPI into a temporary folder (--suite names a
copy). build/release/text_test compiles each schema and reads each instance: what the suite calls invalid must not be let
through. Ends with "N passed, N failed".
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DRAFT = "tests/draft2020-12"


def package():
    pins = (ROOT / "tests/requirements.txt").read_text()
    return re.search(r"^jsonschema==\S+", pins, re.M).group(0)


def fetch(folder):
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--no-binary", "jsonschema", "--dest", folder, package()], check=True, timeout=600)
    archive = next(pathlib.Path(folder).glob("jsonschema-*.tar.gz"))
    with tarfile.open(archive) as sources:
        sources.extractall(folder, filter="data")
    return next(pathlib.Path(folder).glob("jsonschema-*/json"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--suite", help="a folder that holds " + DRAFT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        suite = pathlib.Path(args.suite) if args.suite else fetch(folder)
        run = subprocess.run([ROOT / "build/release/text_test", "--gtest_filter=SchemaSuite.*"], text=True,
                             capture_output=True, env={**os.environ, "FATHOM_SCHEMA_SUITE": str(suite / DRAFT)})
    good = run.returncode == 0 and "1 test" in run.stdout and "SKIPPED" not in run.stdout
    print("\n".join(line for line in run.stdout.splitlines() if line.startswith(tuple("0123456789"))))
    if not good:
        print(run.stdout[-6000:], run.stderr[-2000:])
    print(f"{int(good)} passed, {int(not good)} failed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
