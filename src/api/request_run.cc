#include "api/request_run.h"

#include <algorithm>
#include <charconv>
#include <chrono>

#include "base/clock.h"

namespace fathom::api {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kWaitInterval{250};  // between looks whether the client is there

// Of all choices together; their JSON takes about 100 bytes each.
constexpr size_t kMaxLogprobs = 4'000'000;

// X-Data-Parallel-Rank, as proxies in front of data-parallel servers set it.
Refusal read_rank_header(const ServiceContext& context, std::optional<int32_t>* rank) {
  if (context.caller->request == nullptr) return std::nullopt;
  const std::string* text = context.caller->request->header("x-data-parallel-rank");
  if (text == nullptr) return std::nullopt;
  int32_t value = -1;
  const auto [end, failure] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (failure != std::errc() || end != text->data() + text->size() || value < 0) {
    return ApiError{
        400, fmt::format("X-Data-Parallel-Rank is '{}', expected a number from 0 on", *text), {}, {}};
  }
  *rank = value;
  return std::nullopt;
}

Error too_many_logprobs(size_t share) {
  return error(ErrorCode::kInvalidArgument,
               "A choice has more than {} log-probabilities; ask for fewer at each token, for fewer "
               "tokens or for fewer choices.",
               share);
}

// Those of its prompt, which are known before any is computed.
size_t prompt_logprobs_of(const RunSpec& spec) {
  if (spec.logprobs.prompt_start < 0) return 0;
  const size_t first = std::max<size_t>(1, static_cast<size_t>(spec.logprobs.prompt_start));
  const size_t at_each = 1 + static_cast<size_t>(spec.logprobs.top) + spec.logprobs.token_ids.size();
  return spec.prompt.size() <= first ? 0 : (spec.prompt.size() - first) * at_each;
}

}  // namespace

RequestRun::RequestRun(const ServiceContext& context, http::ResponseWriter& writer)
    : context_(context), writer_(writer) {}

RequestRun::~RequestRun() {
  writer_.on_client_gone(nullptr);
  for (size_t i = 0; i < running_.size(); ++i) {
    if (!choices_[i].finish) context_.sink.cancel(running_[i].sink_id);
    tally_->end(choices_[i], *running_[i].stream, writer_.client_gone());
  }
  for (const std::string& rid : rids_) context_.active.remove(rid);
}

Refusal RequestRun::start(std::vector<RunSpec> specs) {
  if (context_.field_log != nullptr) return ApiError{503, "Only the request's fields were wanted", {}, {}};
  for (const RunSpec& spec : specs) {
    const size_t share = kMaxLogprobs / specs.size();
    if (prompt_logprobs_of(spec) > share) return to_api_error(too_many_logprobs(share));
  }
  auto switches = std::make_shared<std::vector<std::shared_ptr<CancelSwitch>>>();
  std::vector<std::shared_ptr<CancelSwitch>> switch_of(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    if (i > 0 && specs[i].rid == specs[i - 1].rid) {
      switch_of[i] = switch_of[i - 1];
      continue;
    }
    switch_of[i] = switches->emplace_back(std::make_shared<CancelSwitch>(context_.sink));
    const std::string name = context_.caller->scope + specs[i].rid;
    if (!context_.active.add(name, switch_of[i])) {
      return ApiError{
          400, fmt::format("rid: a request called '{}' is being worked on", specs[i].rid), "rid", {}};
    }
    rids_.push_back(name);
  }
  writer_.on_client_gone([switches] {
    for (const auto& cancel : *switches) cancel->pull();
  });

  tally_.emplace(context_, specs.size());
  if (Refusal refusal = tally_->begin(specs)) return refusal;
  writer_.body_is_free();
  std::optional<int32_t> header_rank;
  if (Refusal refusal = read_rank_header(context_, &header_rank)) return refusal;
  const std::string serial = random_id();  // the sink's ids stay unique when a rid is used again
  choices_.reserve(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    RunSpec& spec = specs[i];
    GenerateRequest request;
    request.id = fmt::format("{}-{}-{}", spec.rid, serial, i);
    request.prompt = spec.prompt;
    request.sampling = spec.sampling;
    request.logprobs = spec.logprobs;
    request.mask = spec.mask;
    request.priority = spec.priority;
    request.cache_namespace = context_.caller->scope + spec.cache_namespace;
    request.data_parallel_rank = spec.data_parallel_rank ? spec.data_parallel_rank : header_rank;
    if (spec.explain_cache) {
      const CacheExplanations told = context_.options.cache_explanations;
      if (told == CacheExplanations::kOff) {
        return unsupported("explain_cache", "is turned off on this server (--cache-explanations)");
      }
      // Another namespace may be another tenant's.
      const bool all = told == CacheExplanations::kAll && !context_.options.multi_tenant;
      request.explain_miss = all ? ExplainMiss::kAllNamespaces : ExplainMiss::kOwnNamespace;
    }
    std::string sink_id = request.id;
    auto stream = context_.sink.submit(std::move(request));
    if (!stream.ok()) return to_api_error(stream.error());
    std::unique_ptr<TokenText> text;
    if (context_.tokenizer != nullptr) text = std::make_unique<TokenText>(*context_.tokenizer, spec.text);
    std::unique_ptr<AnswerParts> parts;
    if (spec.answer) parts = std::make_unique<AnswerParts>(*spec.answer);
    Choice& choice = choices_.emplace_back();
    choice.index = i;
    choice.spec = std::move(spec);
    running_.push_back(
        {std::move(sink_id), std::move(stream).value(), std::move(text), std::move(parts), switch_of[i]});
    switch_of[i]->add(running_.back().sink_id);
  }
  return std::nullopt;
}

void RequestRun::end_by_stop_text(size_t index, std::string matched) {
  choices_[index].finish = ChoiceFinish{FinishReason::Kind::kStop, {}, std::move(matched), {}};
  context_.sink.finish(running_[index].sink_id);
}

void RequestRun::count_logprobs(size_t index, const std::vector<TokenOutput>& outputs) {
  Running& running = running_[index];
  for (const TokenOutput& output : outputs)
    running.logprobs += 1 + output.top.size() + output.requested.size();
  const size_t share = kMaxLogprobs / choices_.size();
  if (running.logprobs <= share || choices_[index].finish) return;
  choices_[index].finish = ChoiceFinish{FinishReason::Kind::kAbort, {}, {}, too_many_logprobs(share)};
  context_.sink.cancel(running.sink_id);
}

// The text that the event's tokens add; sets the choice's finish.
std::string RequestRun::take_tokens(size_t index, TokenEvent* event_taken) {
  TokenEvent& event = *event_taken;
  Choice& choice = choices_[index];
  Running& running = running_[index];
  choice.cached_tokens = event.cached_tokens;
  choice.retractions = event.retractions;
  if (event.cache_miss) choice.cache_miss = std::move(event.cache_miss);
  if (event.speculation) choice.speculation = std::move(event.speculation);
  if (choice.spec.logprobs.any()) {
    count_logprobs(index, event.prompt_logprobs);
    count_logprobs(index, event.outputs);
  }
  if (!event.prompt_logprobs.empty()) choice.prompt_logprobs = std::move(event.prompt_logprobs);

  std::string added;
  const bool keep_outputs = choice.spec.logprobs.output;
  for (size_t i = 0; i < event.outputs.size() && !choice.finish; ++i) {
    TokenOutput& output = event.outputs[i];
    const int32_t token = output.token;
    choice.output_ids.push_back(token);
    if (running.parts != nullptr) running.parts->count(token, &choice.answer);
    if (keep_outputs) choice.outputs.push_back(std::move(output));
    const bool is_stop =
        event.finish && event.finish->matched_token == token && i + 1 == event.outputs.size();
    if (running.text == nullptr || (is_stop && !choice.spec.text.no_stop_trim)) continue;
    added += running.text->add(token);
    if (running.text->matched()) end_by_stop_text(index, *running.text->matched());
  }
  if (event.finish && !choice.finish) {
    if (running.text != nullptr) {
      added += running.text->finish();
      if (running.text->matched()) end_by_stop_text(index, *running.text->matched());
    }
    if (!choice.finish) {
      choice.finish =
          ChoiceFinish{event.finish->kind, event.finish->matched_token, {}, std::move(event.finish->error)};
    }
  }
  return added;
}

Growth RequestRun::absorb(size_t index, TokenEvent event) {
  Choice& choice = choices_[index];
  Running& running = running_[index];
  const size_t before = choice.output_ids.size();
  Growth growth;
  growth.text = take_tokens(index, &event);
  // Without what was guessed behind a stop string.
  tally_->tokens(index, static_cast<int64_t>(choice.output_ids.size() - before), event.time_ns);
  choice.text += growth.text;
  if (running.parts != nullptr) {
    running.parts->push(growth.text, choice.finish.has_value(), &choice.answer, &growth.pieces);
    if (running.parts->complete() && !choice.finish) {
      choice.finish = ChoiceFinish{FinishReason::Kind::kStop, {}, {}, {}};
      context_.sink.finish(running.sink_id);
    }
  }
  if (choice.finish) {
    running.cancel->remove(running.sink_id);
    if (choice.spec.turn_text != nullptr && context_.turns != nullptr) {
      context_.turns->remember(context_.caller->scope + choice.spec.cache_namespace, *choice.spec.turn_text,
                               choice.spec.prompt, choice.output_ids);
    }
    tally_->end(choice, *running.stream, writer_.client_gone());
  }
  return growth;
}

bool RequestRun::run(const OnDelta& on_delta, const OnIdle& on_idle) {
  const auto ready = std::make_shared<ReadyStreams>();
  for (size_t i = 0; i < running_.size(); ++i) running_[i].stream->tell(ready, i);
  size_t open = choices_.size();
  std::vector<size_t> to_read;  // may have events
  int64_t last_sign = steady_clock().now_ns();
  while (open > 0) {
    const std::vector<size_t> told = ready->take(to_read.empty() ? kWaitInterval : milliseconds(0));
    to_read.insert(to_read.end(), told.begin(), told.end());
    // One event of each in turn, so that no choice waits for another's.
    const bool progress = !to_read.empty();
    size_t kept = 0;
    for (const size_t i : to_read) {
      if (choices_[i].finish) continue;
      std::optional<TokenEvent> event = running_[i].stream->next(milliseconds(0));
      if (!event) continue;
      Growth growth = absorb(i, std::move(*event));
      growth.more = !choices_[i].finish && !running_[i].stream->empty();
      if (!on_delta(choices_[i], growth)) return false;
      if (choices_[i].finish) {
        --open;
      } else {
        to_read[kept++] = i;
      }
    }
    to_read.resize(kept);
    if (writer_.client_gone()) return false;
    if (progress) {
      last_sign = steady_clock().now_ns();
    } else if (seconds_since(last_sign) >= context_.options.keep_alive_seconds) {
      last_sign = steady_clock().now_ns();
      if (!on_idle()) return false;
    }
  }
  return true;
}

Refusal RequestRun::failure() const {
  for (const Choice& choice : choices_) {
    if (choice.finish && choice.finish->error) return to_api_error(*choice.finish->error);
  }
  return std::nullopt;
}

}  // namespace fathom::api
