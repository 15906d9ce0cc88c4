"""Starts `fathom serve` on a free port for a test, waits until it is ready, and stops it."""
import pathlib
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "build/release/fathom"


class RunningServer:
    """with RunningServer("--model-path", "models/demo") as server: ... server.base ...

    On leaving, the server must drain and exit 0 (SIGTERM); anything else raises.
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
                raise RuntimeError(f"the server exited with {self.process.returncode}:\n{self.output()}")
            found = re.search(r"ready in .*: http://([0-9.:\[\]a-f]+) ", self.output())
            if found:
                self.base = f"http://{found.group(1)}"
                return self
            time.sleep(0.02)
        self.process.kill()
        raise RuntimeError(f"not ready within {self.ready_within} s:\n{self.output()}")

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
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise RuntimeError(f"did not stop within 60 s of SIGTERM:\n{self.output()}")
        if code != 0 and kind is None:
            raise RuntimeError(f"exit code {code} after SIGTERM:\n{self.output()}")
        if kind is not None:
            print(self.output()[-4000:])
        pathlib.Path(self.log.name).unlink(missing_ok=True)
        self.log.close()
        return False
