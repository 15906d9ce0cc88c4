"""/metrics read with Prometheus' own parser: names, types, buckets and counts after known requests; the dashboard of
packaging/grafana uses no name that is not there.
"""
import json
import math
import pathlib
import re
import sys
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/clients")]
import runner  # noqa: E402
from runner import check, equal, test  # noqa: E402
from running_server import RunningServer  # noqa: E402

TTFT = [0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400, math.inf]
BETWEEN = [0.002, 0.004, 0.006, 0.008, 0.010, 0.015, 0.020, 0.025, 0.030, 0.035, 0.040, 0.060, 0.080, 0.1, 0.2, 0.4, 0.6,
           0.8, 1, 2, 4, 6, 8, math.inf]
WHOLE = TTFT[:-1] + [600, 1200, 1800, 2400, math.inf]
SGLANG = {
    "sglang:num_running_reqs": "gauge", "sglang:num_queue_reqs": "gauge", "sglang:num_used_tokens": "gauge",
    "sglang:token_usage": "gauge", "sglang:max_total_num_tokens": "gauge", "sglang:gen_throughput": "gauge",
    "sglang:cache_hit_rate": "gauge", "sglang:num_retracted_reqs": "gauge",
    "sglang:spec_accept_length": "gauge", "sglang:spec_accept_rate": "gauge",
    "sglang:prompt_tokens": "counter", "sglang:generation_tokens": "counter", "sglang:cached_tokens": "counter",
    "sglang:num_requests": "counter", "sglang:num_aborted_requests": "counter", "sglang:evicted_tokens": "counter",
    "sglang:time_to_first_token_seconds": "histogram", "sglang:inter_token_latency_seconds": "histogram",
    "sglang:e2e_request_latency_seconds": "histogram", "sglang:queue_time_seconds": "histogram",
    "sglang:prompt_tokens_histogram": "histogram", "sglang:generation_tokens_histogram": "histogram"}
VLLM = {
    "vllm:num_requests_running": "gauge", "vllm:num_requests_waiting": "gauge", "vllm:kv_cache_usage_perc": "gauge",
    "vllm:prefix_cache_queries": "counter", "vllm:prefix_cache_hits": "counter", "vllm:prompt_tokens": "counter",
    "vllm:generation_tokens": "counter", "vllm:request_success": "counter", "vllm:num_preemptions": "counter",
    "vllm:time_to_first_token_seconds": "histogram", "vllm:inter_token_latency_seconds": "histogram",
    "vllm:e2e_request_latency_seconds": "histogram", "vllm:request_queue_time_seconds": "histogram"}


def scrape(server):
    """{family: metric}, as Prometheus' client library reads it (counters without their _total)."""
    with urllib.request.urlopen(server.base + "/metrics", timeout=30) as answer:
        equal(answer.headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        return {family.name: family for family in text_string_to_metric_families(answer.read().decode())}


def value(families, family, suffix="", **labels):
    found = [s.value for s in families[family].samples if s.name == family + suffix
             and all(s.labels.get(k) == v for k, v in labels.items())]
    equal(len(found), 1, f"samples of {family}{suffix} {labels}")
    return found[0]


def chat(server, **fields):
    body = {"messages": [{"role": "user", "content": "Tell me a story."}], "ignore_eos": True, "max_tokens": 20, **fields}
    request = urllib.request.Request(server.base + "/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["usage"]


@test
def names_and_types_are_the_references(server):
    families = scrape(server)
    for name, kind in {**SGLANG, **VLLM}.items():
        check(name in families, f"{name} is missing")
        equal(families[name].type, kind, name)
        check(families[name].documentation, f"{name} has no help")
    for name in SGLANG:
        for sample in families[name].samples:
            equal(sample.labels["model_name"], "models/demo", sample.name)


@test
def buckets_are_the_references(server):
    families = scrape(server)
    for name, bounds in (("time_to_first_token_seconds", TTFT), ("inter_token_latency_seconds", BETWEEN),
                         ("e2e_request_latency_seconds", WHOLE)):
        for prefix in ("sglang:", "vllm:"):
            buckets = [s for s in families[prefix + name].samples if s.name.endswith("_bucket")]
            equal([float(s.labels["le"]) for s in buckets], bounds, prefix + name)
            counts = [s.value for s in buckets]
            equal(counts, sorted(counts), "cumulative counts")
            equal(counts[-1], value(families, prefix + name, "_count"))


@test
def counts_follow_the_requests(server):
    before = scrape(server)
    usages = [chat(server, n=2), chat(server)]
    after = scrape(server)

    def grown(family, suffix="_total", **labels):
        return value(after, family, suffix, **labels) - value(before, family, suffix, **labels)

    equal(grown("sglang:num_requests"), 3)
    equal(grown("fathom:requests", outcome="length"), 3)
    equal(grown("sglang:generation_tokens"), 60)
    equal(grown("sglang:generation_tokens", "_total"), sum(u["completion_tokens"] for u in usages))
    prompt = usages[1]["prompt_tokens"]
    equal(grown("sglang:prompt_tokens"), 3 * prompt)
    equal(grown("sglang:time_to_first_token_seconds", "_count"), 3)
    equal(grown("sglang:inter_token_latency_seconds", "_count"), 57)
    equal(grown("fathom:inter_token_latency_seconds", "_count"), 57)
    equal(grown("sglang:e2e_request_latency_seconds", "_count"), 3)
    equal(grown("sglang:prompt_tokens_histogram", "_sum"), 3 * prompt)
    equal(grown("sglang:generation_tokens_histogram", "_sum"), 60)
    equal(grown("vllm:request_success", finished_reason="length"), 3)
    equal(grown("fathom:http_answers", code="200"), 3)  # two, and the first scrape
    between = grown("sglang:inter_token_latency_seconds", "_sum")
    check(0 < between < grown("sglang:e2e_request_latency_seconds", "_sum"), between)
    equal(value(after, "sglang:num_running_reqs"), 0)
    equal(value(after, "sglang:num_used_tokens"), 0)
    equal(value(after, "fathom:pages_leaked"), 0)


def panels(owner):
    for panel in owner.get("panels", []):
        yield panel
        yield from panels(panel)  # a row holds panels of its own


@test
def the_dashboard_uses_names_that_are_there(server):
    families = scrape(server)
    labels = {}  # of each name
    for family in families.values():
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    dashboard = json.loads((ROOT / "packaging/grafana/fathom.json").read_text())
    expressions = [(panel["title"], target["expr"]) for panel in panels(dashboard) for target in panel.get("targets", [])]
    expressions += [("variable " + variable["name"], str(variable["query"]))
                    for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    check(len(expressions) > 20, expressions)
    for title, expression in expressions:
        used = re.findall(r"((?:sglang|vllm|fathom):[a-z0-9_]+|process_[a-z_]+)(?:{([^}]*)})?", expression)
        check(used, f"{title}: no metric in {expression!r}")
        for name, selector in used:
            check(name in labels, f"{title}: /metrics has no {name}")
            wrong = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) - labels[name] - {"instance", "job"}
            equal(wrong, set(), f"{title}: labels that {name} has not")
        grouped = {label.strip() for group in re.findall(r"\bby\s*\(([^)]*)\)", expression) for label in group.split(",")}
        known = set().union(*(labels[name] for name, _ in used)) | {"instance", "job"}
        equal(grouped - known, set(), f"{title}: grouped by labels that are not there")


def main():
    with RunningServer("--model-path", "models/demo", "--enable-metrics", "--metrics-names", "both") as server:
        server.abort_all = lambda: None
        return 1 if runner.run_all(server) else 0


if __name__ == "__main__":
    sys.exit(main())
