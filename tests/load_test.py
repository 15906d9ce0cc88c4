"""Many streaming clients at once, some of which vanish, read slowly or send nonsense.

  load_test.py [--clients 500] [--seconds 300] [--ratio 2] [--client-processes 1] [--steps] [-- FLAGS OF fathom serve]

Starts the server on the demo model, keeps the clients busy for the given time, lets the last requests end, and checks:
no error that the client did not cause, no KV page leaked or still held; in runs of a minute or more also memory flat,
and the 99th percentile of the time between two tokens at most --ratio times the median (0: only shown). Prints the
figures; the last line is "N passed, N failed". The clients are processes of one thread and plain sockets, so that they
cost the server's machine little.

The time between tokens is shown twice: as the clients receive them, and as the server sends them (its /metrics). With
--steps the server writes a trace, whose steps are shown beside the processor time that they took: where other programs
use the machine, the latter is what is the server's own (exactly so with --threads 1; more threads wait for each other).
"""
import argparse
import array
import heapq
import json
import math
import multiprocessing.connection
import os
import pathlib
import random
import re
import selectors
import socket
import statistics
import sys
import tempfile
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "models/demo/training")]
import skills  # noqa: E402
from running_server import RunningServer  # noqa: E402

CHAT = "/v1/chat/completions"
EVENT = b"data: {"
ERROR_EVENT = b'data: {"error"'
MIB = 1 << 20
# Shorter runs, as CI's, show times and memory only: caches fill, and other work may share the machine.
JUDGED_SECONDS = 60


def post(body, path=CHAT, headers=""):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: load\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def bad_requests():
    """(bytes, the statuses that answer them)"""
    hello = [{"role": "user", "content": "Hello"}]
    return [
        (post(b'{"messages": ['), {400}),
        (post({"messages": hello, "temprature": 1}), {400}),
        (post({"messages": hello, "n": 100000}), {400}),
        (post({"messages": hello, "stream": "yes"}), {400}),
        (post({"messages": []}), {400}),
        (post({"messages": [{"role": "user", "content": "word " * 20000}]}), {400}),
        (post({"messages": hello, "model": "another"}), {404}),
        (post(b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}"), {400}),
        (post({}, path="/no/such/path"), {404}),
        (post({}, path="/health"), {405}),
        (post({"messages": hello}, headers="X-Filler: " + "x" * 70000 + "\r\n"), {431}),
        (f"POST {CHAT} HTTP/1.1\r\nHost: load\r\nContent-Length: 999999999999\r\n\r\n".encode(), {413}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", {400}),
    ]


class Client:
    """One request after another on connections of their own. `kind` says how the present one behaves."""

    KINDS = (("normal", 70), ("vanishing", 12), ("slow", 8), ("bad", 10))

    def __init__(self, load, seed):
        self.load = load
        self.random = random.Random(seed)
        self.socket = None

    def begin(self, now):
        names, weights = zip(*self.KINDS)
        self.kind = self.random.choices(names, weights)[0]
        self.expected = {200}
        if self.kind == "bad":
            request, self.expected = self.random.choice(self.load.bad)
        else:
            request = self.question()
        self.out, self.tail, self.status = request, b"", None
        self.events, self.last, self.done, self.failed = 0, 0.0, False, False
        self.vanish_after = self.random.choice((0, 1, 5, 20)) if self.kind == "vanishing" else None
        self.began = now
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if self.kind == "slow":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect_ex(self.load.address)
        self.load.selector.register(self.socket, selectors.EVENT_WRITE, self)

    def question(self):
        if self.random.random() < 0.5:
            text = f"Tell me a story. Number {self.random.randrange(10000)}."
        else:
            text = self.random.choice(self.load.questions)
        # What follows an answer's end are special tokens, often; each is to be an event, so that the time between
        # events is that between tokens.
        return post({"messages": [{"role": "user", "content": text}], "stream": True, "temperature": 0.8,
                     "max_tokens": self.random.choice((16, 64, 128, 256)), "ignore_eos": self.random.random() < 0.3,
                     "skip_special_tokens": False,
                     "stream_options": {"include_usage": True}})

    def writable(self, now):
        try:
            sent = self.socket.send(self.out)
        except BlockingIOError:
            return
        except OSError as failure:
            # A server that has refused a head closes before it has read all of it.
            return self.end(now, None if self.kind == "bad" else f"send: {failure}")
        self.out = self.out[sent:]
        if self.out:
            return
        if self.kind == "slow":
            self.load.selector.unregister(self.socket)
            return self.load.wake(now + self.random.uniform(0.2, 1.0), self)
        self.load.selector.modify(self.socket, selectors.EVENT_READ, self)
        if self.vanish_after == 0:
            self.load.wake(now + self.random.uniform(0, 0.3), self)

    def woken(self, now):
        """A timer: a slow client reads a little, a vanishing one goes."""
        if self.kind == "vanishing":
            return self.end(now, None)
        self.readable(now, 512)
        if self.socket is not None:
            self.load.wake(now + self.random.uniform(0.05, 0.3), self)

    def readable(self, now, most=65536):
        try:
            data = self.socket.recv(most)
        except BlockingIOError:
            return
        except OSError as failure:
            return self.end(now, None if self.kind == "bad" else f"recv: {failure}")
        if not data:
            return self.closed(now)
        data = self.tail + data
        if self.status is None:
            found = re.match(rb"HTTP/1\.1 (\d\d\d) [^\r]*\r\n", data)
            if found is None:
                self.tail = data
                return
            self.status = int(found.group(1))
            if self.status not in self.expected:
                return self.end(now, f"status {self.status}: {data[-300:]!r}")
        self.count(data, now)
        keep = len(ERROR_EVENT) - 1
        self.tail = data[-keep:]
        if self.vanish_after and self.events >= self.vanish_after:
            self.end(now, None)

    def count(self, data, now):
        """Events of `data`, which begins with the tail that was seen before."""
        fresh = data.count(EVENT) - self.tail.count(EVENT)
        if ERROR_EVENT in data:
            self.failed = True
        if b"[DONE]" in data:
            self.done = True
        if fresh <= 0:
            return
        if self.last and self.kind == "normal":
            # Events that came in one piece share the time since the last ones.
            self.load.gaps.extend([(now - self.last) / fresh] * fresh)
        elif not self.last:
            self.load.first.append(now - self.began)
        self.last = now
        self.events += fresh
        self.load.events += fresh

    def closed(self, now):
        if self.kind == "bad":
            good = self.status in self.expected
        else:
            good = self.done and not self.failed
        self.end(now, None if good else f"{self.kind}: closed after status {self.status}, {self.events} events, "
                                        f"the end is {self.tail!r}")

    def end(self, now, problem):
        if self.kind != "slow" or self.out:
            self.load.selector.unregister(self.socket)
        self.socket.close()
        self.socket = None
        self.load.ended(self, problem, now)


class Load:
    def __init__(self, base, clients, seed):
        parts = urllib.parse.urlsplit(base)
        self.address = (parts.hostname, parts.port)
        self.selector = selectors.DefaultSelector()
        self.timers, self.turns = [], 0
        self.bad = bad_requests()
        self.questions = [q[0] for name in ("add", "linear", "capital", "words_task", "lookup")
                          for q in skills.eval_set(name, 40, seed)]
        self.gaps, self.first, self.events = array.array("d"), array.array("d"), 0
        self.count, self.problems = {}, []
        self.accepting = True
        self.clients = [Client(self, seed * 1000 + i) for i in range(clients)]
        self.active = 0

    def wake(self, when, client):
        self.turns += 1
        heapq.heappush(self.timers, (when, self.turns, client, client.socket))

    def ended(self, client, problem, now):
        self.count[client.kind] = self.count.get(client.kind, 0) + 1
        if problem:
            self.problems.append(problem)
        self.active -= 1
        if self.accepting:
            self.start(client, now)

    def start(self, client, now):
        self.active += 1
        client.begin(now)

    def turn(self):
        now = time.monotonic()
        wait = 0.05
        if self.timers:
            wait = min(wait, max(0.0, self.timers[0][0] - now))
        for key, mask in self.selector.select(wait):
            now = time.monotonic()
            client = key.data
            if mask & selectors.EVENT_WRITE:
                client.writable(now)
            else:
                client.readable(now)
        now = time.monotonic()
        while self.timers and self.timers[0][0] <= now:
            _, _, client, of = heapq.heappop(self.timers)
            if client.socket is of:
                client.woken(now)


def run_clients(base, clients, seed, seconds, pipe):
    """A client process: keeps its clients busy for so long, lets their last requests end, and sends what it saw."""
    load = Load(base, clients, seed)
    start = time.monotonic()
    for client in load.clients:
        load.start(client, start)
    while time.monotonic() < start + seconds:
        load.turn()
    load.seconds, load.timely = time.monotonic() - start, load.events
    load.accepting = False
    end = time.monotonic() + 120
    while load.active > 0 and time.monotonic() < end:
        load.turn()
    pipe.send((load.gaps, load.first, load.timely / load.seconds, load.count, load.problems, load.active))


class Clients:
    """What all client processes saw."""

    def __init__(self, base, clients, seed, seconds, processes):
        context = multiprocessing.get_context("fork")
        self.pipes = []
        for i in range(processes):
            mine, theirs = context.Pipe(duplex=False)
            share = clients * (i + 1) // processes - clients * i // processes
            context.Process(target=run_clients, args=(base, share, seed + i, seconds, theirs), daemon=True).start()
            theirs.close()
            self.pipes.append(mine)
        self.gaps, self.first, self.rate = array.array("d"), array.array("d"), 0.0
        self.count, self.problems, self.unfinished = {}, [], 0

    def wait(self, meanwhile):
        """Until all have ended; calls `meanwhile` several times a second."""
        while self.pipes:
            ready = multiprocessing.connection.wait(self.pipes, 0.2)
            meanwhile()
            for pipe in ready:
                gaps, first, rate, count, problems, unfinished = pipe.recv()
                self.pipes.remove(pipe)
                self.gaps.extend(gaps)
                self.first.extend(first)
                self.rate += rate
                self.problems += problems
                self.unfinished += unfinished
                for kind, n in count.items():
                    self.count[kind] = self.count.get(kind, 0) + n


class Watch:
    """The server's memory and its own figures, once a second."""

    def __init__(self, server, seconds):
        self.server, self.rss, self.next = server, [], 0.0
        self.end = time.monotonic() + seconds

    def look(self):
        now = time.monotonic()
        if now < self.next or now > self.end:
            return
        self.next = now + 1
        status = pathlib.Path(f"/proc/{self.server.process.pid}/status").read_text()
        self.rss.append(int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024)

    def figure(self, name):
        _, page = self.server.get("/metrics")
        return float(re.search(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", page, re.M).group(1))

    def quantiles(self, name, shares):
        """Of a histogram, each within its bucket as if its values were spread evenly."""
        _, page = self.server.get("/metrics")
        buckets = [(float(bound), int(float(count))) for bound, count in
                   re.findall(rf'^{re.escape(name)}_bucket{{[^}}]*le="([^"]+)"[^}}]*}} (\S+)$', page, re.M)]
        found = []
        for share in shares:
            wanted, low, below = share * buckets[-1][1], 0.0, 0
            for bound, count in buckets:
                if count >= wanted and count > below:
                    high = low if math.isinf(bound) else bound
                    found.append(low + (high - low) * (wanted - below) / (count - below))
                    break
                low, below = bound, count
        return found

    def growth(self):
        """Bytes between the median of the second quarter and that of the last."""
        quarter = max(1, len(self.rss) // 4)
        return statistics.median(self.rss[-quarter:]) - statistics.median(self.rss[quarter:2 * quarter])


def percentile(values, share):
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def spread(name, milliseconds):
    values = sorted(milliseconds)
    median, p99 = percentile(values, 0.5), percentile(values, 0.99)
    return (f"{name} ({len(values)}): median {median:.2f} ms, p90 {percentile(values, 0.9):.2f}, p99 {p99:.2f}, worst "
            f"{percentile(values, 1):.2f}; p99 / median {p99 / median if values else float('nan'):.2f}")


def show_steps(path):
    """The steps of a trace, without its first and last tenth."""
    events = json.loads(pathlib.Path(path).read_text())["traceEvents"]
    steps = sorted((e["ts"], e["dur"] / 1e3, e["args"].get("cpu_us", math.nan) / 1e3, e["args"]["rows"],
                    e["args"]["tokens"] - e["args"]["rows"]) for e in events if e["ph"] == "X" and e["tid"] == 1)
    tenth = len(steps) // 10
    steps = steps[tenth:len(steps) - tenth]
    full = max(s[3] for s in steps) * 0.9
    kinds = {"all steps": lambda rows, prompt: True,
             "full steps without a prompt": lambda rows, prompt: rows >= full and prompt == 0,
             "full steps with 1 to 32 prompt tokens": lambda rows, prompt: rows >= full and 0 < prompt <= 32,
             "full steps with more": lambda rows, prompt: rows >= full and prompt > 32}
    for kind, belongs in kinds.items():
        chosen = [s for s in steps if belongs(s[3], s[4])]
        print(spread(f"  {kind}, wall", [s[1] for s in chosen]))
        if chosen and not math.isnan(chosen[0][2]):
            print(spread(f"  {kind}, processor", [s[2] for s in chosen]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--ratio", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--client-processes", type=int, default=1)
    parser.add_argument("--steps", action="store_true", help="trace the server's steps (its memory then grows)")
    parser.add_argument("flags", nargs="*", help="for fathom serve")
    args = parser.parse_args()
    # A pool that soon is full: its memory counts once it was used, and prefixes have to be evicted.
    flags = [] if any("--max-total-tokens" in flag for flag in args.flags) else ["--max-total-tokens", "32768"]
    trace = os.path.join(tempfile.mkdtemp(), "steps.json")
    if args.steps:
        flags += ["--trace-file", trace]
    with RunningServer("--model-path", "models/demo", "--enable-metrics", *flags, *args.flags) as server:
        clients = Clients(server.base, args.clients, args.seed, args.seconds, args.client_processes)
        watch = Watch(server, args.seconds)
        clients.wait(watch.look)
        end = time.monotonic() + 20
        while time.monotonic() < end and watch.figure("sglang:num_used_tokens") > 0:
            time.sleep(0.1)
        leaked = watch.figure("fathom:pages_leaked")
        held = watch.figure("sglang:num_used_tokens")
        retracted = watch.figure("fathom:preemptions_total")
        sent_median, sent_p99 = watch.quantiles("fathom:inter_token_latency_seconds", (0.5, 0.99))

    gaps = sorted(clients.gaps)
    median, p99 = percentile(gaps, 0.5), percentile(gaps, 0.99)
    first = sorted(clients.first)
    print(f"{args.clients} clients, {args.seconds:.0f} s; requests: {clients.count}")
    print(f"{clients.rate:.0f} events/s; preemptions {retracted:.0f}; first token: median "
          f"{percentile(first, 0.5):.2f} s, p99 {percentile(first, 0.99):.2f} s")
    print(f"time between tokens ({len(gaps)}): median {median * 1e3:.1f} ms, p90 {percentile(gaps, .9) * 1e3:.1f}, p99 "
          f"{p99 * 1e3:.1f}, p99.9 {percentile(gaps, .999) * 1e3:.1f}, worst {percentile(gaps, 1) * 1e3:.1f}; "
          f"p99 / median {p99 / median:.2f}")
    print(f"as the server sends them: median {sent_median * 1e3:.1f} ms, p99 {sent_p99 * 1e3:.1f}; p99 / median "
          f"{sent_p99 / sent_median:.2f}")
    if args.steps:
        show_steps(trace)
    print(f"memory: {watch.rss[0] / MIB:.0f} MiB at the start, {max(watch.rss) / MIB:.0f} at most, "
          f"{watch.rss[-1] / MIB:.0f} at the end; {watch.growth() / MIB:+.1f} from the second to the last quarter; every tenth: "
          + " ".join(f"{rss / MIB:.0f}" for rss in watch.rss[::max(1, len(watch.rss) // 10)]))
    for problem in clients.problems[:10]:
        print("  problem:", problem)
    checks = {
        "no error that the client did not cause": not clients.problems,
        "every request ended": clients.unfinished == 0,
        "every kind of client was there": len(clients.count) == len(Client.KINDS),
        "no page leaked or held": leaked == 0 and held == 0,
    }
    if args.seconds >= JUDGED_SECONDS:
        checks["memory is flat"] = watch.growth() < max(8 * MIB, 0.03 * watch.rss[-1])
    if args.seconds >= JUDGED_SECONDS and args.ratio > 0:
        checks[f"p99 between tokens at most {args.ratio:g} times the median"] = p99 <= args.ratio * median
    for what, good in checks.items():
        print(f"{'ok  ' if good else 'FAIL'} {what}")
    failed = sum(not good for good in checks.values())
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
