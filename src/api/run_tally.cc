#include "api/run_tally.h"

#include "api/request_run.h"
#include "api/tenants.h"
#include "base/clock.h"

namespace fathom::api {
namespace {

double seconds_between(int64_t begin_ns, int64_t end_ns) {
  return static_cast<double>(end_ns - begin_ns) * 1e-9;
}

nlohmann::ordered_json sampling_json(const SamplingParams& sampling) {
  return {{"temperature", sampling.temperature},
          {"top_p", sampling.top_p},
          {"top_k", sampling.top_k},
          {"min_p", sampling.min_p},
          {"repetition_penalty", sampling.repetition_penalty},
          {"frequency_penalty", sampling.frequency_penalty},
          {"presence_penalty", sampling.presence_penalty},
          {"max_new_tokens", sampling.max_new_tokens},
          {"min_new_tokens", sampling.min_new_tokens},
          {"ignore_eos", sampling.ignore_eos},
          {"seed", sampling.seed},
          {"stop_token_ids", sampling.stop_token_ids}};
}

Outcome outcome_of(const Choice& choice, bool gone) {
  if (!choice.finish) return gone ? Outcome::kDisconnected : Outcome::kAborted;
  switch (choice.finish->kind) {
    case FinishReason::Kind::kStop:
      return Outcome::kStop;
    case FinishReason::Kind::kLength:
      return Outcome::kLength;
    case FinishReason::Kind::kAbort:
      break;
  }
  if (choice.finish->error) return Outcome::kFailed;
  return gone ? Outcome::kDisconnected : Outcome::kAborted;
}

Stage stage_of(const Choice& choice, const TokenStream& stream) {
  if (!choice.answer.calls.empty()) return Stage::kToolCall;
  if (!choice.output_ids.empty()) return Stage::kDecode;
  return stream.admitted_ns() == 0 ? Stage::kQueued : Stage::kPrefill;
}

}  // namespace

RunTally::RunTally(const ServiceContext& context, size_t choices) : context_(context), times_(choices) {}

RunTally::~RunTally() {
  if (places_ == 0) return;
  context_.caller->tenant->give_places(places_);
  if (idle_tokens_ > 0) context_.caller->tenant->give_tokens(steady_clock().now_ns(), idle_tokens_);
}

Refusal RunTally::begin(const std::vector<RunSpec>& specs) {
  const auto choices = static_cast<int32_t>(specs.size());
  int64_t prompt_tokens = 0;
  for (const RunSpec& spec : specs) prompt_tokens += static_cast<int64_t>(spec.prompt.size());
  if (Tenant* tenant = context_.caller->tenant.get()) {
    if (Refusal refusal = tenant->take_places(steady_clock().now_ns(), choices, prompt_tokens))
      return refusal;
    places_ = choices;
    idle_tokens_ = prompt_tokens;
  }
  RequestRecord& record = context_.caller->record;
  record.rid = specs[0].rid;
  record.choices = choices;
  record.prompt_tokens = prompt_tokens;
  if (RequestLog* log = context_.options.request_log.get()) {
    if (log->level() >= 1) record.sampling = sampling_json(specs[0].sampling);
    log->received(*context_.caller->request, *context_.caller);
  }
  if (http::Request* request = context_.caller->request) std::string().swap(request->body);
  return std::nullopt;
}

void RunTally::tokens(size_t choice, int64_t count, int64_t time_ns) {
  if (count == 0) return;
  const int64_t now = time_ns != 0 ? time_ns : steady_clock().now_ns();
  int64_t& last = times_[choice].last_token_ns;
  ServiceMetrics& metrics = *context_.metrics;
  if (last == 0) {
    const double seconds = seconds_between(context_.caller->arrived_ns, now);
    metrics.first_token_seconds.observe(seconds);
    double& first = context_.caller->record.first_token_seconds;
    if (first < 0) first = seconds;
  } else {
    const double seconds = seconds_between(last, now) / static_cast<double>(count);
    metrics.between_tokens_seconds.observe(seconds, count);
    metrics.fine_between_tokens_seconds.observe(seconds, count);
  }
  last = now;
  if (Tenant* tenant = context_.caller->tenant.get()) tenant->count_output(now, count);
}

void RunTally::end(const Choice& choice, const TokenStream& stream, bool gone) {
  Times& times = times_[choice.index];
  if (std::exchange(times.ended, true)) return;
  ServiceMetrics& metrics = *context_.metrics;
  const Outcome outcome = outcome_of(choice, gone);
  RequestRecord& record = context_.caller->record;
  metrics.outcomes[static_cast<size_t>(outcome)].add();
  record.finish.emplace_back(to_string(outcome));
  if (outcome == Outcome::kDisconnected) {
    const Stage stage = stage_of(choice, stream);
    metrics.disconnects[static_cast<size_t>(stage)].add();
    record.disconnected_in = to_string(stage);
  }
  const bool answered = outcome == Outcome::kStop || outcome == Outcome::kLength;
  if (answered || stream.admitted_ns() != 0 || !choice.output_ids.empty())
    idle_tokens_ -= static_cast<int64_t>(choice.spec.prompt.size());
  const int64_t arrived = context_.caller->arrived_ns;
  metrics.request_seconds.observe(seconds_since(arrived));
  const auto prompt = static_cast<double>(choice.spec.prompt.size());
  metrics.prompt_tokens.observe(prompt);
  metrics.generation_tokens.observe(static_cast<double>(choice.output_ids.size()));
  record.cached_tokens += choice.cached_tokens;
  record.output_tokens += static_cast<int64_t>(choice.output_ids.size());
  const RequestLog* log = context_.options.request_log.get();
  if (log != nullptr && log->level() >= 2) record.outputs.push_back(choice.text);
  if (const int64_t admitted = stream.admitted_ns(); admitted != 0) {
    record.queue_seconds = seconds_between(arrived, admitted);
    metrics.queue_seconds.observe(record.queue_seconds);
    metrics.uncached_prompt_tokens.observe(prompt - choice.cached_tokens);
  }
}

}  // namespace fathom::api
