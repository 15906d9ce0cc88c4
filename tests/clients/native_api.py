"""The native endpoints by raw HTTP: /generate, /tokenize, the probes, cancelling."""
import json
import threading

import openai

from runner import check, equal, raises, test, until

PROMPT = "<｜User｜>What is 7 + 5?<｜Assistant｜></think>"


def generate(t, **body):
    status, answer = t.post("/generate", body)
    equal(status, 200, f"status of {answer}")
    return answer


@test
def text_and_ids_give_the_same(t):
    ids = t.post("/tokenize", {"prompt": PROMPT})[1]["tokens"]
    greedy = {"temperature": 0, "max_new_tokens": 24}
    by_text = generate(t, text=PROMPT, sampling_params=greedy)
    by_ids = generate(t, input_ids=ids, sampling_params=greedy)
    equal(by_text["output_ids"], by_ids["output_ids"])
    info = by_text["meta_info"]
    equal(info["prompt_tokens"], len(ids))
    equal(info["completion_tokens"], len(by_text["output_ids"]))
    check(info["finish_reason"]["type"] in ("stop", "length"))
    check(info["e2e_latency"] > 0)
    for key in ("id", "cached_tokens", "weight_version", "num_retractions", "reasoning_tokens"):
        check(key in info, key)
    text = t.post("/detokenize", {"tokens": by_text["output_ids"]})[1]["text"]
    equal(text, by_text["text"])
    equal(t.request("PUT", "/generate", {"input_ids": ids, "sampling_params": greedy})[0], 200)


@test
def logprobs_of_prompt_and_output(t):
    ids = t.post("/tokenize", {"prompt": PROMPT})[1]["tokens"]
    answer = generate(t, input_ids=ids, return_logprob=True, logprob_start_len=0, top_logprobs_num=3,
                      token_ids_logprob=[1, 5], return_text_in_logprobs=True,
                      sampling_params={"temperature": 0, "max_new_tokens": 6, "ignore_eos": True})
    info = answer["meta_info"]
    equal([entry[1] for entry in info["input_token_logprobs"]], ids)
    equal(info["input_token_logprobs"][0][0], None)
    check(all(entry[0] <= 0 for entry in info["input_token_logprobs"][1:]))
    equal([entry[1] for entry in info["output_token_logprobs"]], answer["output_ids"])
    for chosen, top, asked in zip(info["output_token_logprobs"], info["output_top_logprobs"],
                                  info["output_token_ids_logprobs"]):
        equal(len(top), 3)
        equal(top[0][1], chosen[1], "greedy takes the likeliest")
        equal([entry[1] for entry in asked], [1, 5])
    # The output's logprobs are those of a prompt that holds it.
    again = generate(t, input_ids=ids + answer["output_ids"], return_logprob=True, logprob_start_len=len(ids),
                     sampling_params={"temperature": 0, "max_new_tokens": 1})
    scored = [entry[0] for entry in again["meta_info"]["input_token_logprobs"]]
    for a, b in zip(scored, [entry[0] for entry in info["output_token_logprobs"]]):
        check(abs(a - b) < 0.1, f"logprobs {a} and {b}")


@test
def batches_are_lists(t):
    texts = [PROMPT, "<｜User｜>Hi<｜Assistant｜></think>"]
    both = generate(t, text=texts, sampling_params={"temperature": 0, "max_new_tokens": 12})
    alone = [generate(t, text=text, sampling_params={"temperature": 0, "max_new_tokens": 12}) for text in texts]
    equal([one["text"] for one in both], [one["text"] for one in alone])
    choices = generate(t, text=PROMPT, sampling_params={"n": 3, "sampling_seed": 1, "max_new_tokens": 8})
    equal(len(choices), 3)


@test
def a_stream_is_cumulative(t):
    body = {"text": PROMPT, "sampling_params": {"temperature": 0, "max_new_tokens": 24}}
    whole = generate(t, **body)
    events = t.events("/generate", body)
    for before, after in zip(events, events[1:]):
        check(after["text"].startswith(before["text"]))
    equal(events[-1]["text"], whole["text"])
    equal(events[-1]["output_ids"], whole["output_ids"])
    equal([event["meta_info"]["finish_reason"] is None for event in events], [True] * (len(events) - 1) + [False])


@test
def null_means_until_the_context_is_full(t):
    limit = t.get("/v1/models")[1]["data"][0]["max_model_len"]
    ids = [5] * (limit - 6)
    answer = generate(t, input_ids=ids, sampling_params={"max_new_tokens": None, "ignore_eos": True,
                                                         "temperature": 0})
    equal(answer["meta_info"]["completion_tokens"], 6)
    equal(answer["meta_info"]["finish_reason"], {"type": "length", "length": 6})


@test
def tokenize_a_chat(t):
    messages = [{"role": "user", "content": "Hi"}]
    status, answer = t.post("/v1/tokenize", {"messages": messages, "chat_template_kwargs": {"thinking": True}})
    equal(status, 200)
    text = t.post("/v1/detokenize", {"tokens": answer["tokens"], "skip_special_tokens": False})[1]["text"]
    equal(text, "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><think>")
    typed = [{"role": "user", "content": "<｜end▁of▁sentence｜>"}]
    tokens = t.post("/tokenize", {"messages": typed})[1]["tokens"]
    check(1 not in tokens, "a typed special token is plain text")


@test
def the_probes_answer(t):
    for path in ("/health", "/ready", "/ping", "/health_generate"):
        equal(t.request("GET", path)[0], 200, path)
    equal(t.get("/model_info")[1]["is_generation"], True)
    check(t.get("/server_info")[1]["max_total_num_tokens"] > 0)
    check("num_running_reqs" in t.get("/v1/loads")[1]["loads"][0])


@test
def the_key_is_asked_for_where_there_is_one(t):
    if not t.api_key:
        return
    for wrong in ("", "Bearer x", f"Bearer {t.api_key}x", t.api_key):
        status, headers, body = t.request("GET", "/v1/models", headers={"Authorization": wrong})
        equal((status, headers["WWW-Authenticate"]), (401, "Bearer"))
        equal(json.loads(body)["error"]["code"], "invalid_api_key")
    for path in ("/health", "/ready", "/ping"):
        equal(t.request("GET", path, headers={"Authorization": ""})[0], 200, path)
    stranger = openai.OpenAI(base_url=t.base + "/v1", api_key="x", max_retries=0, timeout=60)
    raises(openai.AuthenticationError, stranger.models.list)


@test
def abort_by_id(t):
    check(until(lambda: t.busy() == 0), "nothing of the tests before runs")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(t.post("/generate", {
        "text": PROMPT, "rid": "to-be-aborted",
        "sampling_params": {"max_new_tokens": 3000, "ignore_eos": True}})))
    thread.start()
    check(until(lambda: t.busy() > 0), "the request runs")
    equal(t.post("/abort_request", {"rid": "to-be"})[0], 200)
    check(t.busy() > 0, "a part of an id aborts nothing")
    equal(t.post("/abort_request", {"rid": "to-be-aborted"})[0], 200)
    thread.join(30)
    status, answer = answers[0]
    equal((status, answer["meta_info"]["finish_reason"]["type"]), (200, "abort"))
    check(until(lambda: t.busy() == 0), "nothing runs afterwards")


@test
def flush_the_cache(t):
    equal(t.request("POST", "/flush_cache?timeout=10")[0], 200)
    # Right after an answer, however it ended: by length, or by a stop that is found when the next step is out.
    for ending in ({"max_new_tokens": 2}, {"max_new_tokens": 200},
                   {"max_new_tokens": 200, "stop": ["1", "e", " "]}):
        answer = generate(t, text=PROMPT * 4, sampling_params={"temperature": 0, **ending})
        equal(answer["meta_info"]["cached_tokens"], 0, f"{ending}: cached tokens")
        status, _, text = t.request("POST", "/flush_cache")
        equal(status, 200, f"{ending}: status of {text}")
        load = t.load()
        equal((load["num_used_tokens"], load["num_cached_tokens"]), (0, 0), f"{ending}: tokens left by the flush")
