// POST /v1/completions: the request, and the run of its choices.
#include "api/completion_output.h"
#include "api/endpoints.h"
#include "api/event_stream.h"
#include "base/clock.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

constexpr int32_t kDefaultMaxTokens = 16;
constexpr size_t kMaxSuffix = size_t{16} << 20;

void read_best_of(Fields& fields, int32_t n) {
  int32_t best_of = n;
  if (!fields.int32("best_of", 1, INT32_MAX, &best_of) || best_of == n) return;
  if (best_of < n) return fields.fail("best_of", fmt::format("got {}, expected at least n ({})", best_of, n));
  fields.fail(unsupported("best_of", "more candidates than n are not available"));
}

// Each prompt becomes what stands before a hole, with `suffix` behind it: the model writes what is between.
Refusal fill_in_the_middle(const ServiceContext& context, const std::string& suffix, Prompts* prompts) {
  if (prompts->texts.empty()) return ApiError{400, "suffix: expected a prompt of text", "suffix", {}};
  const text::Tokenizer& tokenizer = *context.tokenizer;
  const auto begin = tokenizer.token_to_id("<｜fim▁begin｜>");
  const auto hole = tokenizer.token_to_id("<｜fim▁hole｜>");
  const auto end = tokenizer.token_to_id("<｜fim▁end｜>");
  if (!begin || !hole || !end) return unsupported("suffix", "the model has no tokens to fill in the middle");
  if (Refusal refusal = check_text_length(context, suffix.size())) return refusal;
  const std::vector<int32_t> after = tokenizer.encode(suffix, false);
  for (size_t i = 0; i < prompts->ids.size(); ++i) {
    std::vector<int32_t> ids;
    if (tokenizer.add_bos_token() && tokenizer.bos_id()) ids.push_back(*tokenizer.bos_id());
    const std::vector<int32_t> before = tokenizer.encode(prompts->texts[i], false);
    ids.push_back(*begin);
    ids.insert(ids.end(), before.begin(), before.end());
    ids.push_back(*hole);
    ids.insert(ids.end(), after.begin(), after.end());
    ids.push_back(*end);
    prompts->ids[i] = std::move(ids);
  }
  return std::nullopt;
}

Refusal read_request(const ServiceContext& context, const ordered_json& body, CompletionRequest* out) {
  Fields fields(body, "", "request", context.field_log);
  std::string model;
  fields.string("model", 4096, &model);
  if (!fields.failed()) {
    if (Refusal refusal = check_model(context, model)) return refusal;
  }
  const ordered_json* prompt = fields.any("prompt");
  if (prompt == nullptr) {
    fields.fail("prompt", "is missing, expected a string, a list of strings or token ids");
  } else if (Refusal refusal = read_prompts(context, "prompt", *prompt, &out->prompts)) {
    fields.fail(*refusal);
  }
  fields.boolean("echo", &out->echo);
  int32_t limit = 0;
  // Echo alone needs no new token: it gives the prompt's own logprobs.
  if (fields.int32("max_tokens", out->echo ? 0 : 1, INT32_MAX, &limit)) out->sampling.max_new_tokens = limit;
  read_sampling(context, Dialect::kOpenAi, fields, &out->sampling);
  read_best_of(fields, out->sampling.n);
  if (static_cast<int64_t>(out->prompts.ids.size()) * out->sampling.n > context.options.limits.batch) {
    fields.fail("n", fmt::format("prompts x n is above {}", context.options.limits.batch));
  }
  out->logprobs = fields.int32("logprobs", 0, kMaxTopLogprobs, &out->top_logprobs);
  read_stream_options(fields, &out->stream);
  read_request_options(fields, &out->options);
  // Where a stream tells of the prompt.
  out->stream.include_usage = out->stream.include_usage || out->options.explain_cache;
  std::string suffix;
  if (fields.string("suffix", kMaxSuffix, &suffix) && !suffix.empty() && !fields.failed()) {
    if (Refusal refusal = fill_in_the_middle(context, suffix, &out->prompts)) fields.fail(*refusal);
  }
  fields.refuse({"return_token_ids", "return_prompt_token_ids"}, "is not available here; use /generate");
  fields.accept({"user", "user_id", "store", "metadata", "service_tier"});
  refuse_unavailable(fields);
  return fields.finish();
}

Refusal make_specs(const ServiceContext& context, const CompletionRequest& request,
                   std::vector<RunSpec>* specs) {
  std::shared_ptr<const TokenMaskSource> mask;
  Refusal refused = make_mask(context, request.sampling.form, text::ReasoningStart::kContent, &mask);
  if (refused) return refused;
  for (const std::vector<int32_t>& prompt : request.prompts.ids) {
    Length length = resolve_length(context, request.sampling, prompt.size(), kDefaultMaxTokens);
    if (length.refusal) return length.refusal;
    for (int i = 0; i < request.sampling.n; ++i) {
      RunSpec& spec = specs->emplace_back();
      spec.rid = request.options.rid;
      spec.prompt = prompt;
      spec.sampling = request.sampling.for_choice(i, length.max_new_tokens);
      spec.mask = mask;
      if (Refusal refusal = apply_logit_rules(context, request.sampling.rules, &spec)) return refusal;
      spec.logprobs.output = request.logprobs;
      spec.logprobs.top = request.top_logprobs;
      if (request.logprobs && request.echo) spec.logprobs.prompt_start = 0;
      spec.text = request.sampling.text_options();
      spec.priority = request.options.priority;
      spec.cache_namespace = request.options.cache_namespace;
      spec.data_parallel_rank = request.options.data_parallel_rank;
      spec.explain_cache = request.options.explain_cache;
    }
  }
  return std::nullopt;
}

void stream_completion(const ServiceContext& context, const CompletionRequest& request, RequestRun& run,
                       http::ResponseWriter& writer) {
  const AnswerHead head = answer_head(context, request.options.rid);
  EventStream events(writer, request_id_header(head.id));
  CompletionChunks chunks(context, request, head);
  const bool complete = run.run(
      [&](const Choice& choice, const Growth& growth) {
        if (choice.finish && choice.finish->error) {
          events.fail(to_api_error(*choice.finish->error));
          return false;
        }
        const std::optional<ordered_json> chunk = chunks.advance(choice, growth.text);
        return !chunk || events.send(*chunk);
      },
      [&] { return events.keep_alive(); });
  if (!complete) return;
  if (request.stream.include_usage && !events.send(chunks.usage_chunk(run.choices()))) return;
  events.finish();
}

}  // namespace

void handle_completions(const ServiceContext& context, const http::Request& http_request,
                        http::ResponseWriter& writer) {
  CompletionRequest request;
  {
    ordered_json body;  // not kept while the answer is made
    Refusal refusal = read_body(context, http_request, &body);
    if (!refusal) refusal = read_request(context, body, &request);
    if (refusal) return writer.send(error_response(*refusal));
  }
  std::vector<RunSpec> specs;
  if (Refusal refusal = make_specs(context, request, &specs)) return writer.send(error_response(*refusal));

  RequestRun run(context, writer);
  if (Refusal refusal = run.start(std::move(specs))) return writer.send(error_response(*refusal));
  if (request.stream.stream) return stream_completion(context, request, run, writer);
  const bool complete = run.run([](const Choice&, const Growth&) { return true; }, [] { return true; });
  if (!complete) return;
  if (Refusal refusal = run.failure()) return writer.send(error_response(*refusal));
  const AnswerHead head = answer_head(context, request.options.rid);
  http::Response response = json_response(completion_json(context, request, head, run.choices()));
  response.headers = request_id_header(head.id);
  writer.send(std::move(response));
}

}  // namespace fathom::api
