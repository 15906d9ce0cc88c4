"""A model on two processes ("nodes"): the tokens of one, and what happens when a node dies, hangs, is cut off, or does not fit.

Two network namespaces stand for two machines where this one lets us make them (root, iproute2). With
FATHOM_TEST_DEVICE=cuda each node has a GPU, or two where there are four, and NCCL between them; all are of this machine.
"""
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/clients")]
import runner  # noqa: E402
from runner import check, equal, test, until  # noqa: E402

BINARY = ROOT / "build/release/fathom"
CUDA = os.environ.get("FATHOM_TEST_DEVICE") == "cuda"
MODEL = ["--model-path", "models/demo", "--device", "cuda" if CUDA else "cpu", "--threads", "1", "--dtype", "float32",
         "--max-total-tokens", "4096", "--max-running-requests", "8"]
TIMEOUT = 10 if CUDA else 4  # seconds, of --dist-timeout
GPUS = len(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.splitlines()) if CUDA else 0
RANKS = 2 if CUDA and GPUS < 4 else 4
PROMPTS = ["What is the capital of France?", "Tell me a story.", "What is 17 plus 25?", "Who are you?"]
work = pathlib.Path(tempfile.mkdtemp(prefix="fathom-nodes-"))
(work / "secret").write_text(secrets.token_hex(24) + "\n")
(work / "other").write_text(secrets.token_hex(24) + "\n")
for name in ("secret", "other"):
    (work / name).chmod(0o600)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    """One `fathom serve`, perhaps in a network namespace. Killed at the end of a `with` that did not wait for it."""

    def __init__(self, *flags, namespace=None):
        self.log = open(work / f"node-{time.monotonic_ns()}.log", "w+b")
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        self.process = subprocess.Popen([*inside, str(BINARY), "serve", "--port", "0", *flags], cwd=ROOT, stdout=self.log,
                                        stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        if kind is not None:
            print(f"--- {' '.join(self.process.args)}\n{self.output()[-3000:]}")
        self.log.close()

    def output(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def says(self, words, seconds=20.0):
        check(until(lambda: words in self.output() or self.process.poll() is not None, seconds) and words in self.output(),
              f"{words!r} is not said by {' '.join(self.process.args)}:\n{self.output()[-2000:]}")

    def ready(self):
        self.says("ready in", 40.0)
        self.base = "http://" + re.search(r"ready in .*: http://([0-9.:]+) ", self.output()).group(1)
        return self

    def ends(self, code, seconds=15.0):
        try:
            equal(self.process.wait(seconds), code, "exit code")
            check("has not ended within" not in self.output(), f"it ended by force:\n{self.output()[-2000:]}")
        except subprocess.TimeoutExpired:
            raise runner.Failure(f"still running after {seconds} s:\n{self.output()[-2000:]}")

    def ask(self, prompt, **fields):
        body = {"messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 24, **fields}
        request = urllib.request.Request(self.base + "/v1/chat/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["choices"][0]["message"]["content"]


def flags(rank, address, *more, tp=RANKS, secret="secret"):
    return [*MODEL, "--tp", str(tp), "--nnodes", "2", "--node-rank", str(rank), "--dist-init-addr", address,
            "--dist-timeout", str(TIMEOUT), "--dist-secret-file", str(work / secret),
            *(["--base-gpu-id", str(rank * RANKS // 2)] if CUDA else []), *more]


class Pair:
    """Both nodes, ready."""

    def __init__(self, *more, **options):
        self.address = f"127.0.0.1:{free_port()}"
        self.nodes = [Node(*flags(rank, self.address, *more, **options)) for rank in (0, 1)]

    def __enter__(self):
        try:
            self.nodes[0].ready()
            self.nodes[1].says("is ready in")
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self.nodes

    def __exit__(self, *what):
        for node in self.nodes:
            node.__exit__(*what)


def answers(node, **fields):
    return [node.ask(prompt, **fields) for prompt in PROMPTS]


def streams_until_the_end(node, count=3):
    """Long requests that run; -> a function that gives how each ended: its last words, and the exception's."""
    ends = []
    first = threading.Semaphore(0)

    def run():
        body = {"messages": [{"role": "user", "content": "Tell me a story."}], "ignore_eos": True, "max_tokens": 1200,
                "stream": True}
        request = urllib.request.Request(node.base + "/v1/chat/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        words = ""
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                for line in answer:
                    if not words:
                        first.release()
                    words = (words + line.decode())[-3000:]
        except (OSError, urllib.error.HTTPError) as failure:
            words = f"{words} {failure}"
        ends.append(words)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for _ in threads:
        check(first.acquire(timeout=30), "a stream does not begin")

    def finish():
        for thread in threads:
            thread.join(30)
        equal(len(ends), count, "streams that ended")
        return ends

    return finish


def all_told(ends, words):
    for end in ends:
        check('"error"' in end and words in end, f"a request ended with {end!r}, without {words!r}")


@test
def two_nodes_give_the_tokens_of_one_rank(_):
    alone = Node(*MODEL, "--tp", "1")
    with alone, Pair() as (host, guest):
        alone.ready()
        expected = answers(alone)
        equal(answers(host), expected, f"answers of {RANKS} ranks on 2 nodes")
        check("Paris" in expected[0], expected[0])
        equal(answers(host), expected, "answers with a cached prefix")
        equal(host.ask("What is 2 plus 3?", response_format={"type": "json_object"}, max_tokens=40),
              alone.ask("What is 2 plus 3?", response_format={"type": "json_object"}, max_tokens=40), "constrained")
        check("listening" not in guest.output() and "http://" not in guest.output(), guest.output())
        # The guest listens nowhere, but for NCCL's sake.
        inodes = {os.readlink(f"/proc/{guest.process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{guest.process.pid}/fd")}
        tables = [line.split() for table in ("tcp", "tcp6")
                  for line in pathlib.Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
        listening = [row for row in tables if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]
        if not CUDA:
            equal(listening, [], "sockets on which node 1 listens")
        host.process.send_signal(signal.SIGTERM)
        host.ends(0)
        guest.ends(0)
        guest.says("node 0 has ended the model")


@test
def splits_and_guesses_work_over_nodes(_):
    with Node(*MODEL, "--tp", "1") as alone:
        expected = answers(alone.ready())
    # The second group of requests has its leader on node 1.
    splits = [["--dp", "2", "--enable-dp-attention", "--ep-size", "4", "--speculative-algorithm", "NEXTN"],
              ["--pp-size", "2", "--speculative-algorithm", "NGRAM"],
              ["--ep-size", "4", "--enable-eplb", "--eplb-rebalance-num-iterations", "20", "--ep-num-redundant-experts", "4"]]
    if CUDA:
        splits = splits if RANKS == 4 else []
        splits += [["--ep-size", "2", "--speculative-algorithm", "NEXTN"], ["--pp-size", "2", "--speculative-algorithm", "NGRAM"],
                   ["--dp", "2", "--enable-dp-attention", "--ep-size", "2", "--speculative-algorithm", "NEXTN"],
                   ["--dp", "2", "--enable-dp-attention", "--speculative-algorithm", "NGRAM"],
                   ["--ep-size", "2", "--enable-eplb", "--eplb-rebalance-num-iterations", "20", "--ep-num-redundant-experts", "4"],
                   ["--dp", "2", "--enable-dp-attention", "--ep-size", "2", "--enable-eplb",
                    "--eplb-rebalance-num-iterations", "20", "--ep-num-redundant-experts", "4"],
                   ["--pp-size", "2", "--speculative-algorithm", "EAGLE", "--speculative-num-steps", "3",
                    "--speculative-eagle-topk", "2", "--speculative-num-draft-tokens", "6"]]
    for more in splits:
        with Pair(*more, tp=RANKS // 2 if "--pp-size" in more else RANKS) as (host, guest):
            for rank in ("0", "1") if "--dp" in more else ("0",):
                equal(answers(host, data_parallel_rank=int(rank)), expected, f"answers with {' '.join(more)}, group {rank}")
            if "--enable-eplb" in more:
                moved = re.findall(r"(\d+) experts came to rank", host.output())
                check(any(int(count) for count in moved), f"experts that moved: {moved}")
            # A node that is told to end has the whole model drained.
            guest.process.send_signal(signal.SIGTERM)
            host.ends(0)
            guest.ends(0)
            host.says("node 1 was told to end")


@test
def a_node_that_is_killed_is_noticed_at_once(_):
    with Pair() as (host, guest):
        finish = streams_until_the_end(host)
        start = time.monotonic()
        guest.process.kill()
        all_told(finish(), "node 1")
        host.ends(1)
        check(time.monotonic() - start < TIMEOUT, f"noticed after {time.monotonic() - start:.1f} s")
        host.says("node 1 at 127.0.0.1 (rank 1) has died" if RANKS == 2 else "node 1 at 127.0.0.1 (ranks 2 to 3) has died")
    with Pair() as (host, guest):
        check("Paris" in host.ask(PROMPTS[0]), "it serves again")
        start = time.monotonic()
        host.process.kill()
        guest.ends(1, TIMEOUT)
        guest.says("node 0 at 127.0.0.1 (rank 0) has died" if RANKS == 2 else "node 0 at 127.0.0.1 (ranks 0 to 1) has died")


@test
def a_node_that_is_stopped_is_noticed_in_time(_):
    with Pair() as (host, guest):
        finish = streams_until_the_end(host)
        start = time.monotonic()
        guest.process.send_signal(signal.SIGSTOP)
        all_told(finish(), "node 1")
        host.ends(1)
        check(time.monotonic() - start < TIMEOUT + 3, f"noticed after {time.monotonic() - start:.1f} s")
        host.says("has not been heard of for")
        # It is told, when it wakes.
        guest.process.send_signal(signal.SIGCONT)
        guest.ends(1)


@test
def nodes_that_do_not_fit_are_told(_):
    def refused(words, guest_flags, host_ends=True):
        address = f"127.0.0.1:{free_port()}"
        with Node(*flags(0, address)) as host, Node(*guest_flags(address)) as guest:
            guest.ends(1)
            guest.says(words)
            if host_ends:
                host.ends(1)
                host.says(words)
            else:
                check(host.process.poll() is None, "node 0 waits on")

    if not CUDA:
        refused("--tp: 4 on node 0, 2 on node 1", lambda address: flags(1, address, tp=2))
    refused(f"--chunked-prefill-size: {4096 if CUDA else 512} on node 0, 64 on node 1",
            lambda address: flags(1, address, "--chunked-prefill-size", "64"))
    other = work / "model"
    if not other.exists():
        shutil.copytree(ROOT / "models/demo", other)
        config = json.loads((other / "config.json").read_text())
        config["rms_norm_eps"] = 1e-5
        (other / "config.json").write_text(json.dumps(config))
    refused("the model's config.json: ", lambda address: ["--model-path", str(other), *flags(1, address)[2:]])
    refused("another secret", lambda address: flags(1, address, secret="other"), host_ends=False)


@test
def a_node_waits_for_the_other(_):
    address = f"127.0.0.1:{free_port()}"
    with Node(*flags(1, address)) as guest:
        guest.says(f"waiting for node 0 at {address}, 0 s")
        time.sleep(2)
        with Node(*flags(0, address)) as host:
            check("Paris" in host.ready().ask(PROMPTS[0]), "it serves")
    with Node(*flags(0, f"127.0.0.1:{free_port()}")) as host:
        host.says("waiting for node 1 of 2")
        host.ends(1)
        host.says("node 1 of 2 did not come")


@test
def flags_that_cannot_work_are_refused(_):
    def refused(words, *given):
        done = subprocess.run([str(BINARY), "serve", *MODEL, *given], cwd=ROOT, capture_output=True, text=True, timeout=30)
        check(done.returncode in (1, 2) and words in done.stderr, f"{given}: {done.returncode}, {done.stderr!r}")

    address = ["--dist-init-addr", "127.0.0.1:5000"]
    refused("needs --dist-init-addr", "--tp", "2", "--nnodes", "2")
    refused("do not spread evenly", "--tp", "4", "--nnodes", "3", *address)
    refused("the last is 1", "--tp", "4", "--nnodes", "2", "--node-rank", "2", *address)
    refused("add --enable-dp-attention", "--dp", "2", "--nnodes", "2", *address)
    refused("need a secret", "--tp", "2", "--nnodes", "2", "--dist-init-addr", "0.0.0.0:5000")
    refused("expected HOST:PORT", "--tp", "2", "--nnodes", "2", "--dist-init-addr", "here")
    refused("--nnodes", "--node-rank", "1")


class TwoMachines:
    """Two network namespaces with a cable between them."""
    names = [f"fathom{os.getpid()}a", f"fathom{os.getpid()}b"]
    hosts = ["10.211.77.1", "10.211.77.2"]

    def __enter__(self):
        for name in self.names:
            self.ip("netns", "add", name)
        self.ip("link", "add", "cable", "netns", self.names[0], "type", "veth", "peer", "name", "cable", "netns", self.names[1])
        for name, host in zip(self.names, self.hosts):
            self.ip("-n", name, "addr", "add", f"{host}/24", "dev", "cable")
            for device in ("cable", "lo"):
                self.ip("-n", name, "link", "set", device, "up")
        return self

    def __exit__(self, *what):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    @staticmethod
    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@test
def a_link_that_drops_is_noticed_in_time(_):
    if CUDA:
        print("left out: NCCL finds two GPUs of one machine whatever is between their processes")
        return
    try:
        machines = TwoMachines().__enter__()
    except (OSError, subprocess.CalledProcessError) as failure:
        TwoMachines().__exit__()
        why = getattr(failure, "stderr", None) or failure
        print(f"left out: this machine does not let us make network namespaces: {why}")
        return
    try:
        address = f"{machines.hosts[0]}:5000"
        with Node(*flags(0, address), namespace=machines.names[0]) as host, \
                Node(*flags(1, address), namespace=machines.names[1]) as guest:
            host.ready()
            ask = [sys.executable, "-c", "import json, sys, urllib.request as u; print(json.load(u.urlopen(u.Request("
                   "sys.argv[1] + '/v1/chat/completions', sys.argv[2].encode(), {'Content-Type': 'application/json'}),"
                   "timeout=60))['choices'][0]['message']['content'])", host.base]
            inside = ["ip", "netns", "exec", machines.names[0]]
            body = {"messages": [{"role": "user", "content": PROMPTS[0]}], "temperature": 0, "max_tokens": 24}
            done = subprocess.run([*inside, *ask, json.dumps(body)], capture_output=True, text=True, timeout=60)
            check("Paris" in done.stdout, done.stdout + done.stderr)
            long = subprocess.Popen([*inside, *ask, json.dumps({**body, "max_tokens": 3000, "ignore_eos": True})],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            time.sleep(0.5)
            start = time.monotonic()
            machines.ip("-n", machines.names[1], "link", "set", "cable", "down")
            host.ends(1)
            guest.ends(1)
            check(time.monotonic() - start < TIMEOUT + 4, f"noticed after {time.monotonic() - start:.1f} s")
            check(any(words in host.output() for words in ("has not been heard of for", "cannot be reached")), host.output())
            check("node 0 at 10.211.77.1" in guest.output(), guest.output())
            check("HTTP Error 5" in long.communicate(timeout=20)[1], "the request in progress gets an error")
    finally:
        machines.__exit__()


def main():
    class Nothing:
        abort_all = staticmethod(lambda: None)

    try:
        return 1 if runner.run_all(Nothing, only=sys.argv[1] if len(sys.argv) > 1 else "") else 0
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
