"""Writes manifests/*.yaml from rows.json and the templates (*.yaml.in). --check only says which would change.

A row on one node becomes a Deployment, one on several a LeaderWorkerSet; both have the same pod.
"""
import argparse
import json
import pathlib
import string
import sys

HERE = pathlib.Path(__file__).resolve().parent
IMAGE = "fathom:latest"  # packaging/Dockerfile; put your registry's name here
DRAIN = 120  # seconds for running requests after SIGTERM
LEAVE = 10  # seconds until load balancers have taken a pod out
LOAD_MINUTES = 60  # the longest start: weights from a slow disk, and nodes that wait for each other
DIST_TIMEOUT = 900  # seconds that a node waits for another: pulled images and loaded weights differ by less


def template(name):
    return string.Template((HERE / f"{name}.yaml.in").read_text())


def indent(text, spaces):
    return "\n".join(" " * spaces + line if line else line for line in text.rstrip("\n").split("\n"))


def serve_args(row):
    args = ["serve", "--model-path", "/models", "--host", "0.0.0.0", "--port", "30000"]
    args += ["--api-key-file", "/secrets/keys", "--enable-metrics", "--drain-timeout", str(DRAIN)]
    args += row["flags"]
    if row["nodes"] > 1:
        args += ["--nnodes", "$(LWS_GROUP_SIZE)", "--node-rank", "$(LWS_WORKER_INDEX)"]
        args += ["--dist-init-addr", "$(LWS_LEADER_ADDRESS):5000", "--dist-secret-file", "/secrets/dist-secret"]
        args += ["--dist-timeout", str(DIST_TIMEOUT)]
    return args


# One line for a flag and its value.
def arg_lines(args):
    lines = []
    for arg in args:
        if arg.startswith("--") or not lines or not lines[-1].startswith("--") or "=" in lines[-1]:
            lines.append(arg)
        else:
            lines[-1] += f"={arg}"
    return "".join(f"        - {json.dumps(line)}\n" for line in lines).rstrip("\n")


def placement(row):
    if not row["gpus"]:
        return ""
    products = "".join(f"                  - {p}\n" for p in row["products"])
    return f"""  # All nodes of a set must have the same kind: keep one line.
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
          - matchExpressions:
              - key: nvidia.com/gpu.product
                operator: In
                values:
{products}  tolerations:
    - key: nvidia.com/gpu
      operator: Exists
      effect: NoSchedule
"""


PROBES = """      # 503 while the model is loaded: neither alive nor ready counts before.
      startupProbe:
        httpGet:
          path: /health
          port: http
        periodSeconds: 10
        failureThreshold: {failures}
      livenessProbe:
        httpGet:
          path: /health
          port: http
        periodSeconds: 15
        timeoutSeconds: 5
        failureThreshold: 4
      readinessProbe:
        httpGet:
          path: /ready
          port: http
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 1
"""

PORTS = """      ports:
        - name: http
          containerPort: 30000
"""


def pod(row, worker):
    gpus = f'          nvidia.com/gpu: "{row["gpus"]}"\n' if row["gpus"] else ""
    return template("pod").substitute(
        name=row["name"],
        image=IMAGE,
        args=arg_lines(serve_args(row)),
        claim=row["claim"],
        cpu=row["cpu"],
        memory=row["memory"],
        gpus=gpus,
        placement=placement(row),
        ports="" if worker else PORTS,
        probes="" if worker else PROBES.format(failures=LOAD_MINUTES * 6),
        pre_stop=LEAVE,
        grace=LEAVE + DRAIN + 20,
    )


def manifest(row):
    kind = "deployment" if row["nodes"] == 1 else "leaderworkerset"
    head = f"# {row['row']}. Written by generate.py; change rows.json or the templates.\n"
    indented = 4 if row["nodes"] == 1 else 6
    return head + template(kind).substitute(
        name=row["name"],
        nodes=row["nodes"],
        leader=indent(pod(row, False), indented),
        worker=indent(pod(row, True), indented),
    )


def rows():
    return json.loads((HERE / "rows.json").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    folder = HERE / "manifests"
    wanted = {f"{row['name']}.yaml": manifest(row) for row in rows()}
    found = {path.name: path.read_text() for path in folder.glob("*.yaml")}
    changed = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    for name in changed:
        print(name)
        if check:
            continue
        if name in wanted:
            (folder / name).write_text(wanted[name])
        else:
            (folder / name).unlink()
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
