"""fathom bench: the throughput run through the scheduler, beside the single batches."""
import json
import pathlib
import re
import tempfile

from binary import DEMO
from runner import check, equal, test


def bench(binary, *flags):
    """(standard output, the results) of a run that must succeed."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "results.json")
        code, out, err = binary.run("bench", *DEMO, "--repeat", 1, "--result-file", file, *flags)
        equal(code, 0, err)
        return out, json.loads(file.read_text())


@test
def each_batch_is_measured(binary):
    out, results = bench(binary, "--batch", "1,3", "--input-len", 40, "--output-len", "4,6")
    equal([(r["batch"], r["input_len"], r["output_len"]) for r in results],
          [(1, 40, 4), (1, 40, 6), (3, 40, 4), (3, 40, 6)])
    for r in results:
        for share in (r["prefill_share_of_peak"], r["decode_share_of_bandwidth"]):
            check(0 < share < 1.2, f"a share of {share} of the machine")
        # The rates and the shares are of the same run.
        check(r["prefill_tokens_per_second"] > 0 and r["decode_tokens_per_second"] > 0)
    equal(len(re.findall(r"share of peak", out)), 1)
    check("throughput" not in out, out)


@test
def throughput_counts_what_it_ran(binary):
    flags = ("--input-len", 48, "--output-len", 16, "--num-prompts", 20)
    out, results = bench(binary, *flags)
    run = results[-1]
    equal(run["requests"], 20)
    check(20 * 24 <= run["input_tokens"] <= 20 * 48, run)
    check(20 * 8 <= run["output_tokens"] <= 20 * 16, run)
    check(run["input_tokens"] not in (20 * 24, 20 * 48), "lengths do not vary")
    said = re.search(r"throughput: 20 requests in ([\d.]+) s: ([\d.]+) input tok/s, ([\d.]+) output tok/s "
                     r"\((\d+) in, (\d+) out\)", out)
    check(said, out)
    equal((int(said[4]), int(said[5])), (run["input_tokens"], run["output_tokens"]))
    for rate, tokens in ((said[2], run["input_tokens"]), (said[3], run["output_tokens"])):
        check(abs(float(rate) * run["seconds"] / tokens - 1) < 0.01, f"{rate}/s for {run}")
    # However they are scheduled, the same requests are run to their ends.
    for schedule in (("--max-running-requests", 2), ("--disable-radix-cache", "--disable-overlap-schedule"),
                     ("--schedule-policy", "lpm", "--chunked-prefill-size", 32, "--disable-mixed-chunk"),
                     ("--max-total-tokens", 128)):
        other = bench(binary, *flags, *schedule)[1][-1]
        equal((other["input_tokens"], other["output_tokens"]), (run["input_tokens"], run["output_tokens"]), schedule)


@test
def guesses_are_compared_with_none(binary):
    flags = ("--batch", "1,2", "--input-len", 24, "--output-len", 48, "--speculative-algorithm", "EAGLE",
             "--compare-speculation", "--num-prompts", 4)
    for holds in (0.0, 1.0, 0.85):
        out, results = bench(binary, *flags, "--simulate-acceptance", holds)
        equal([r.get("batch") for r in results], [1, 2, None])
        for r in results:
            check(r["tokens_per_second_without"] > 0 and r["tokens_per_second_with"] > 0, r)
            check(abs(r["times"] * r["tokens_per_second_without"] / r["tokens_per_second_with"] - 1) < 1e-6, r)
            check(f" {r['times']:.2f} | {r['tokens_a_step']:.2f}" in out, out)
        for r in results[:2]:
            # One token is sure; three guesses of which each holds if the one before it does.
            wanted = 1 + holds + holds**2 + holds**3
            check(abs(r["tokens_a_step"] - wanted) <= (0.15 * wanted if holds == 0.85 else 0.01 * wanted), r)


@test
def flags_of_guesses_need_an_algorithm(binary):
    for flags in (("--compare-speculation",), ("--simulate-acceptance", 0.5)):
        code, _, err = binary.run("bench", *DEMO, *flags)
        equal(code, 2, err)
        check("--speculative-algorithm" in err, err)


@test
def runs_that_do_not_fit_are_refused(binary):
    for flags, says in [(("--batch", 4, "--max-running-requests", 2), "--max-running-requests 2"),
                        (("--input-len", 100, "--max-total-tokens", 64), "--max-total-tokens 64"),
                        (("--input-len", 10**6), "the context holds"),
                        (("--device", "cpu", "--fp8-activations", "on"), "on the CPU products take bfloat16 or float32 activations"),
                        (("--result-file", "/nowhere/x"), "cannot write /nowhere/x")]:
        code, _, err = binary.run("bench", *DEMO, "--repeat", 1, "--input-len", 8, "--output-len", 2, *flags)
        equal(code, 1, err)
        check(says in err, err)
