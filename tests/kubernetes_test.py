"""The manifests of packaging/kubernetes: written by their generator, valid for Kubernetes, with flags that the
binary takes, for models that fit where they are put.

The last line is "N passed, N failed".
"""
import argparse
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "packaging" / "kubernetes"
SCHEMA = "1.33"

# Fields of a LeaderWorkerSet that a manifest may have, and the values of those that are chosen from a few.
LWS = {
    "spec": {"replicas", "startupPolicy", "leaderWorkerTemplate", "rolloutStrategy", "networkConfig"},
    "leaderWorkerTemplate": {"size", "restartPolicy", "leaderTemplate", "workerTemplate"},
    "startupPolicy": {"LeaderCreated", "LeaderReady"},
    "restartPolicy": {"RecreateGroupOnPodRestart", "RecreateGroupAfterStart", "None"},
}
# What the controller puts into every container of a set.
VARIABLES = {"LWS_GROUP_SIZE", "LWS_WORKER_INDEX", "LWS_LEADER_ADDRESS"}


def documents():
    for path in sorted((FOLDER / "manifests").glob("*.yaml")):
        yield path.stem, list(yaml.safe_load_all(path.read_text()))


def rows():
    return {row["name"]: row for row in json.loads((FOLDER / "rows.json").read_text())}


def templates(document):
    """Pod templates by role."""
    if document["kind"] == "Deployment":
        return {"leader": document["spec"]["template"]}
    if document["kind"] == "LeaderWorkerSet":
        both = document["spec"]["leaderWorkerTemplate"]
        return {"leader": both["leaderTemplate"], "worker": both["workerTemplate"]}
    return {}


def pods():
    for name, docs in documents():
        for document in docs:
            for role, template in templates(document).items():
                yield name, role, template


def test_written_by_the_generator(_):
    changed = subprocess.run(
        [sys.executable, str(FOLDER / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert changed.returncode == 0, f"run packaging/kubernetes/generate.py: {changed.stdout}"
    assert {name for name, _ in documents()} == rows().keys()


def test_the_page_lists_every_row(_):
    page = (FOLDER / "README.md").read_text()
    for name, row in rows().items():
        line = f"| [{name}](manifests/{name}.yaml) | {row['row']} |"
        assert line in page, f"packaging/kubernetes/README.md lacks: {line}"


def test_valid_for_kubernetes(_):
    for name, docs in documents():
        for document in docs:
            if document["kind"] != "LeaderWorkerSet":
                kubernetes_validate.validate(document, SCHEMA, strict=True)
                continue
            assert document["apiVersion"] == "leaderworkerset.x-k8s.io/v1"
            spec = document["spec"]
            assert spec.keys() <= LWS["spec"], name
            assert spec["leaderWorkerTemplate"].keys() == LWS["leaderWorkerTemplate"], name
            assert spec["startupPolicy"] in LWS["startupPolicy"]
            assert spec["leaderWorkerTemplate"]["restartPolicy"] in LWS["restartPolicy"]
            assert spec["leaderWorkerTemplate"]["size"] == rows()[name]["nodes"]
            for template in templates(document).values():
                wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": template}
                kubernetes_validate.validate(wrapped, SCHEMA, strict=True)


def test_a_wrong_manifest_is_noticed(_):
    _, docs = next(documents())
    broken = json.loads(json.dumps(docs[0]))
    next(iter(templates(broken).values()))["spec"]["containers"][0]["imagine"] = "x"
    wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "template": next(iter(templates(broken).values()))}
    try:
        kubernetes_validate.validate(wrapped, SCHEMA, strict=True)
    except kubernetes_validate.ValidationError:
        return
    raise AssertionError("an unknown field went unnoticed")


def test_pods_may_do_no_more_than_they_must(_):
    for name, role, template in pods():
        spec = template["spec"]
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), name
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        (container,) = spec["containers"]
        own = container["securityContext"]
        assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"], (name, role)
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert volumes == {mount["name"] for mount in container["volumeMounts"]}
        writable = {m["name"] for m in container["volumeMounts"] if not m.get("readOnly")}
        assert writable == {"tmp"}, (name, writable)


def flag_of(container, flag):
    values = [arg.split("=", 1)[1] for arg in container["args"] if arg.startswith(flag + "=")]
    return values[0] if values else None


def test_stopping_leaves_time_to_drain(_):
    for name, role, template in pods():
        (container,) = template["spec"]["containers"]
        drain = int(flag_of(container, "--drain-timeout"))
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        grace = template["spec"]["terminationGracePeriodSeconds"]
        assert grace > pause + drain, (name, role)


def test_probes_and_services_lead_to_the_server(_):
    for name, docs in documents():
        (service,) = [d for d in docs if d["kind"] == "Service"]
        leader = next(t["leader"] for t in map(templates, docs) if t)
        (container,) = leader["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {"http": int(flag_of(container, "--port"))}, name
        assert service["spec"]["ports"][0]["targetPort"] == "http"
        assert container["startupProbe"]["httpGet"] == {"path": "/health", "port": "http"}
        assert container["livenessProbe"]["httpGet"]["path"] == "/health"
        assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
        startup = container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
        assert startup >= 1800, f"{name}: {startup} s to load a model"


def write_secrets(folder):
    (folder / "keys").write_text("client:a-key-of-some-length\n")
    (folder / "dist-secret").write_text("a secret of at least sixteen bytes\n")


def args_here(name, role, template, folder, model, port, meeting):
    """A container's arguments as the controller would fill them in, for files and ports of this machine."""
    values = {"LWS_GROUP_SIZE": str(rows()[name]["nodes"]), "LWS_LEADER_ADDRESS": "127.0.0.1"}
    values["LWS_WORKER_INDEX"] = "0" if role == "leader" else "1"
    args = []
    for arg in template["spec"]["containers"][0]["args"]:
        used = set(re.findall(r"\$\((\w+)\)", arg))
        assert used <= VARIABLES, (name, arg)
        for variable in used:
            arg = arg.replace(f"$({variable})", values[variable])
        here = {"--model-path": model, "--host": "127.0.0.1", "--port": port, "--dist-init-addr": f"127.0.0.1:{meeting}"}
        flag = arg.split("=")[0]
        args.append(f"{flag}={here[flag]}" if flag in here else arg.replace("/secrets/", f"{folder}/"))
    return args


def test_the_binary_takes_every_flag(binary):
    """Started without a model, serve ends with 1; a flag that it does not take, or not with that value, is 2."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_secrets(folder)
        for name, role, template in pods():
            args = args_here(name, role, template, folder, folder / "none", 0, 5000)
            done = subprocess.run([binary, *args], capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 1, f"{name}, {role}: exit code {done.returncode}: {done.stderr}"
            assert "none" in done.stderr, f"{name}, {role}: {done.stderr}"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_demo_set_serves_and_drains(binary):
    template_of = {role: template for name, role, template in pods() if name == "demo-2xcpu"}
    port, meeting = free_port(), free_port()
    processes = {}
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile("w+") as log:
        folder = pathlib.Path(name)
        write_secrets(folder)
        try:
            for role, template in template_of.items():
                args = args_here("demo-2xcpu", role, template, folder, ROOT / "models/demo", port, meeting)
                processes[role] = subprocess.Popen([binary, *args], stdout=log, stderr=log)
            deadline = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline and all(p.poll() is None for p in processes.values())
                    time.sleep(0.2)
            body = json.dumps({"model": "default", "prompt": "2 + 3 =", "max_tokens": 4}).encode()
            headers = {"Content-Type": "application/json", "Authorization": "Bearer a-key-of-some-length"}
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", body, headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert json.load(answer)["usage"]["completion_tokens"] > 0
            processes["leader"].terminate()
            codes = {role: process.wait(30) for role, process in processes.items()}
            assert codes == {"leader": 0, "worker": 0}, codes
        except Exception as failure:
            log.seek(0)
            raise AssertionError(f"{failure}\n{log.read()[-3000:]}") from failure
        finally:
            for process in processes.values():
                process.kill()
                process.wait()


def test_the_models_fit_where_they_are_put(binary):
    for row in rows().values():
        if row["plan"] is None:
            continue
        flags = [f for f in row["flags"] if f not in ("--device", "cpu")]
        done = subprocess.run(
            [binary, "plan", "--model-path", str(ROOT / "models/configs/deepseek_v3"), *flags, *row["plan"]]
            + ["--nnodes", str(row["nodes"])],
            capture_output=True, text=True, timeout=60, check=False,
        )
        assert done.returncode == 0 and "fits: KV pool" in done.stdout, f"{row['name']}: {done.stdout}{done.stderr}"
        ranks = row["gpus"] * row["nodes"]
        if ranks:
            assert f"{ranks} ranks" in done.stdout, f"{row['name']}: {done.stdout}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=str(ROOT / "build/release/fathom"))
    binary = parser.parse_args().binary
    passed = failed = 0
    for name, test in [(n, t) for n, t in globals().items() if n.startswith("test_")]:
        try:
            test(binary)
            passed += 1
        except Exception as failure:  # noqa: BLE001: any failure is counted and shown
            failed += 1
            print(f"FAIL {name}: {type(failure).__name__}: {failure}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
