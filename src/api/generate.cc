// POST /generate: runs a native request and answers it.
#include <algorithm>
#include <utility>

#include "api/endpoints.h"
#include "api/event_stream.h"
#include "api/generate_request.h"
#include "base/clock.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

// What the answer of a choice needs to know of its prompt.
struct Native {
  const GenerateBatch& batch;
  std::vector<size_t> item_of;  // by choice
  int64_t start_ns = 0;

  const GenerateItem& item(const Choice& choice) const { return batch.items[item_of[choice.index]]; }
};

Refusal make_specs(const ServiceContext& context, const GenerateBatch& batch, Native* native,
                   std::vector<RunSpec>* specs) {
  for (size_t k = 0; k < batch.items.size(); ++k) {
    const GenerateItem& item = batch.items[k];
    const SamplingRequest& sampling = batch.sampling[item.sampling].sampling;
    const std::optional<int32_t> default_length = batch.sampling[item.sampling].default_length;
    Length length = resolve_length(context, sampling, item.prompt.size(), default_length);
    if (length.refusal) return length.refusal;
    std::shared_ptr<const TokenMaskSource> mask;
    Refusal refused = make_mask(context, sampling.form, text::ReasoningStart::kContent, &mask);
    if (refused) return refused;
    for (int i = 0; i < sampling.n; ++i) {
      native->item_of.push_back(k);
      RunSpec& spec = specs->emplace_back();
      spec.rid = item.rid;
      spec.prompt = item.prompt;
      spec.sampling = sampling.for_choice(i, length.max_new_tokens);
      spec.mask = mask;
      if (Refusal refusal = apply_logit_rules(context, item.rules, &spec)) return refusal;
      if (item.logprobs.wanted) {
        spec.logprobs = {true, item.logprobs.top, item.logprobs.start, item.logprob_ids};
      }
      spec.text = sampling.text_options();
      spec.priority = batch.options.priority;
      spec.cache_namespace = batch.options.cache_namespace;
      spec.data_parallel_rank = batch.options.data_parallel_rank;
      spec.explain_cache = batch.options.explain_cache;
    }
  }
  return std::nullopt;
}

// `input_lists`: with the prompt's log-probabilities, where they were asked for.
ordered_json answer_json(const ServiceContext& context, const Native& native, const Choice& choice,
                         bool input_lists = true) {
  const GenerateItem& item = native.item(choice);
  ordered_json answer;
  if (context.tokenizer != nullptr) answer["text"] = choice.text;
  answer["output_ids"] = choice.output_ids;
  if (native.batch.return_prompt_token_ids) answer["prompt_token_ids"] = choice.spec.prompt;
  const double seconds = choice.finish ? seconds_since(native.start_ns) : -1.0;
  NativeLogprobs logprobs = item.logprobs;
  logprobs.input = input_lists;
  answer["meta_info"] = meta_info(context, choice, item.rid, seconds, logprobs);
  return answer;
}

// What one choice of a list was refused for is told in its place; a fault of the engine ends the whole.
bool ends_all(const Native& native, const Choice& choice) {
  if (!choice.finish || !choice.finish->error) return false;
  return !native.batch.is_list || to_api_error(*choice.finish->error).status >= 500;
}

// The error that stands for the whole answer: a fault, or that nothing else is left.
Refusal failure_of(const Native& native, const RequestRun& run) {
  const auto failed = [](const Choice& choice) { return choice.finish && choice.finish->error; };
  if (std::ranges::all_of(run.choices(), failed)) return run.failure();
  for (const Choice& choice : run.choices()) {
    if (ends_all(native, choice)) return to_api_error(*choice.finish->error);
  }
  return std::nullopt;
}

// Every event holds the whole answer so far, but for the prompt's log-probabilities, which do not change: the
// first and the last have them. Where events have come faster than the client reads, one tells of all.
void stream_generate(const ServiceContext& context, const Native& native, RequestRun& run,
                     http::ResponseWriter& writer) {
  EventStream events(writer, request_id_header(native.batch.items[0].rid));
  struct State {
    bool begun = false;
    bool news = false;  // not sent
  };
  std::vector<State> states(native.item_of.size());
  const bool complete = run.run(
      [&](const Choice& choice, const Growth& growth) {
        if (ends_all(native, choice)) {
          events.fail(to_api_error(*choice.finish->error));
          return false;
        }
        // Without a tokenizer the new ids are the news.
        State& state = states[choice.index];
        state.news = state.news || !growth.text.empty() || choice.finish || context.tokenizer == nullptr;
        if (!state.news || growth.more) return true;
        state.news = false;
        const bool first = !std::exchange(state.begun, true);
        ordered_json answer = answer_json(context, native, choice, first || choice.finish);
        if (native.batch.is_list) answer["index"] = choice.index;
        return events.send(answer);
      },
      [&] { return events.keep_alive(); });
  if (complete) events.finish();
}

}  // namespace

void handle_generate(const ServiceContext& context, const http::Request& http_request,
                     http::ResponseWriter& writer) {
  const int64_t start = steady_clock().now_ns();
  GenerateBatch batch;
  {
    ordered_json body;  // not kept while the answer is made
    Refusal refusal = read_body(context, http_request, &body);
    if (!refusal) refusal = read_generate_request(context, body, &batch);
    if (refusal) return writer.send(error_response(*refusal));
  }
  Native native{batch, {}, start};
  std::vector<RunSpec> specs;
  if (Refusal refusal = make_specs(context, batch, &native, &specs))
    return writer.send(error_response(*refusal));

  RequestRun run(context, writer);
  if (Refusal refusal = run.start(std::move(specs))) return writer.send(error_response(*refusal));
  if (batch.stream) return stream_generate(context, native, run, writer);
  const bool complete = run.run([](const Choice&, const Growth&) { return true; }, [] { return true; });
  if (!complete) return;
  if (Refusal refusal = failure_of(native, run)) return writer.send(error_response(*refusal));
  ordered_json answer;
  if (batch.is_list) {
    answer = ordered_json::array();
    for (const Choice& choice : run.choices()) answer.push_back(answer_json(context, native, choice));
  } else {
    answer = answer_json(context, native, run.choices()[0]);
  }
  http::Response response = json_response(answer);
  response.headers = request_id_header(batch.items[0].rid);
  writer.send(std::move(response));
}

}  // namespace fathom::api
