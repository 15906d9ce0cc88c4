"""Servers for these tests, and what they look like from outside."""
import contextlib
import os
import pathlib
import re
import time

import running_server
from target import Target

ROOT = running_server.ROOT
CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
STORY = [{"role": "user", "content": "Tell me a story."}]


@contextlib.contextmanager
def serving(*flags, key="", model="models/demo"):
    """A Target at a fresh server; `target.server` is its process."""
    with running_server.RunningServer("--model-path", model, "--enable-metrics", *flags) as server:
        target = Target(server.base, key)
        target.server = server
        yield target


def metric(target, name, **labels):
    """The value of one sample of /metrics."""
    _, _, page = target.request("GET", "/metrics")
    for line in page.decode().splitlines():
        found = re.match(r"([a-zA-Z0-9_:]+)(?:\{(.*)\})? (\S+)$", line)
        if found and found.group(1) == name and all(f'{k}="{v}"' in (found.group(2) or "") for k, v in labels.items()):
            return float(found.group(3))
    raise KeyError(f"{name} {labels}")


def resident_bytes(target):
    status = pathlib.Path(f"/proc/{target.server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024


def listening(pid):
    """[(address in hex, port)] of the TCP sockets on which the process listens."""
    inodes = set()
    for file in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(file.path)))
    found = []
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.append((address, int(port, 16)))
    return found


def answer_of(connection, seconds=10.0):
    """All that a raw connection gives until it is closed, or the time is over."""
    connection.settimeout(seconds)
    data, end = b"", time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while time.monotonic() < end and (part := connection.recv(65536)):
            data += part
    return data
