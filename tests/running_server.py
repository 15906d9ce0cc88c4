"""Starts `fathom serve` on a free port for a test, waits until it is ready, and stops it."""
import atexit
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "build/release/fathom"


def how(code):
    """What a process's return code says."""
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def tell_last(text):
    """Prints `text` below all else that this process prints, the trace of what failed included: of a long log the
    end is shown."""
    sys.stdout.flush()
    sys.stderr.write(text)


class RunningServer:
    """with RunningServer("--model-path", "models/demo") as server: ... server.base ...

    On leaving, the server must drain and exit 0 (SIGTERM); anything else raises. When the test fails instead, the end
    of the server's log and how the server ended are told last: whether it had crashed decides what to look for.
    """

    def __init__(self, *flags, ready_within=60.0, binary=BINARY):
        self.flags, self.ready_within, self.binary = flags, ready_within, binary

    def __enter__(self):
        self.log = open(ROOT / "build" / f"server-{id(self)}.log", "w+b")
        self.process = subprocess.Popen([str(self.binary), "serve", "--port", "0", *self.flags], cwd=ROOT,
                                        stdout=self.log, stderr=subprocess.STDOUT)
        end = time.monotonic() + self.ready_within
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.output()}\nthe server did not start: {how(self.process.returncode)}")
            found = re.search(r"ready in .*: http://([0-9.:\[\]a-f]+) ", self.output())
            if found:
                self.base = f"http://{found.group(1)}"
                return self
            time.sleep(0.02)
        self.process.kill()
        raise RuntimeError(f"{self.output()}\nthe server was not ready within {self.ready_within} s")

    def output(self):
        self.log.flush()
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def get(self, path):
        try:
            with urllib.request.urlopen(self.base + path, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as failure:
            return failure.code, failure.read().decode()

    def __exit__(self, kind, value, trace):
        before = self.process.poll()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise RuntimeError(f"{self.output()}\nthe server did not stop within 60 s of SIGTERM")
        if code != 0 and kind is None:
            when = "after SIGTERM" if before is None else "before it was told to stop"
            raise RuntimeError(f"{self.output()}\nthe server ended {when}: {how(code)}")
        if kind is not None:
            end = "\n".join(line[:300] for line in self.output().splitlines()[-20:])
            fate = (f"it still ran, and ended after SIGTERM: {how(code)}" if before is None else
                    f"it had ended by itself: {how(code)}")
            atexit.register(tell_last, f"The end of the server's log:\n{end}\n"
                                       f"The server when the test failed ({kind.__name__}): {fate}\n")
        pathlib.Path(self.log.name).unlink(missing_ok=True)
        self.log.close()
        return False
