"""The program under test: run to its end, or in a terminal."""
import os
import pathlib
import pty
import select
import subprocess
import time

from runner import Failure

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEMO = ("--model-path", "models/demo")
SECONDS = 60


class Binary:
    def __init__(self, path):
        self.path = str(path)

    def run(self, *arguments, input=""):
        """(exit code, standard output, standard error)."""
        done = subprocess.run([self.path, *map(str, arguments)], cwd=ROOT, input=input, text=True, encoding="utf-8",
                              capture_output=True, timeout=SECONDS)
        return done.returncode, done.stdout, done.stderr

    def terminal(self, *arguments):
        return Terminal([self.path, *map(str, arguments)])

    def abort_all(self):  # what a failed test left behind ends with the test's own process
        pass


class Terminal:
    """A process whose input, output and errors are one terminal.  with binary.terminal(...) as t: t.wait_for("> ")"""

    def __init__(self, command):
        self.command, self.text, self.read = command, "", 0

    def __enter__(self):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(self.command, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave,
                                        start_new_session=True)
        os.close(slave)
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        return False

    def type(self, keys):
        os.write(self.master, keys.encode())

    def wait_for(self, text, seconds=SECONDS):
        """Reads until `text` appears after what earlier calls returned; returns all up to and with it."""
        end = time.monotonic() + seconds
        while text not in self.text[self.read:]:
            if not self._read_some(end - time.monotonic()):
                raise Failure(f"no {text!r} in {self.text[self.read:]!r}")
        begin, self.read = self.read, self.text.index(text, self.read) + len(text)
        return self.text[begin:self.read]

    def exit_code(self, seconds=SECONDS):
        end = time.monotonic() + seconds
        while self._read_some(end - time.monotonic()):
            pass
        return self.process.wait(max(end - time.monotonic(), 0.1))

    def _read_some(self, seconds):
        if seconds <= 0 or not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            piece = os.read(self.master, 65536)
        except OSError:  # the other side is closed
            return False
        self.text += piece.decode("utf-8", errors="replace").replace("\r\n", "\n")
        return bool(piece)
