#include "api/meta_info.h"

#include <cmath>

#include "api/cache_report.h"
#include "api/token_text.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

ordered_json finish_json(const Choice& choice) {
  if (!choice.finish) return nullptr;
  const ChoiceFinish& finish = *choice.finish;
  switch (finish.kind) {
    case FinishReason::Kind::kStop:
      if (finish.matched_text) return {{"type", "stop"}, {"matched", *finish.matched_text}};
      if (finish.matched_token) return {{"type", "stop"}, {"matched", *finish.matched_token}};
      return {{"type", "stop"}};
    case FinishReason::Kind::kLength:
      return {{"type", "length"}, {"length", choice.output_ids.size()}};
    case FinishReason::Kind::kAbort:
      break;
  }
  return {{"type", "abort"}, {"message", finish.error ? finish.error->message : "Aborted"}};
}

// Writes the lists of one side, input or output.
class LogprobLists {
 public:
  LogprobLists(const ServiceContext& context, const NativeLogprobs& wanted)
      : context_(context), wanted_(wanted) {}

  void add(const TokenOutput& output) {
    tokens_.push_back(triple(output.token, logprob_json(output.logprob)));
    top_.push_back(list(output.top));
    ids_.push_back(list(output.requested));
  }
  // The prompt's first token, which nothing predicts.
  void add_first(int32_t token) {
    tokens_.push_back(triple(token, nullptr));
    top_.push_back(nullptr);
    ids_.push_back(nullptr);
  }
  void write(const std::string& side, ordered_json* out) {
    (*out)[side + "_token_logprobs"] = std::move(tokens_);
    if (wanted_.top > 0) (*out)[side + "_top_logprobs"] = std::move(top_);
    if (wanted_.ids) (*out)[side + "_token_ids_logprobs"] = std::move(ids_);
  }

 private:
  ordered_json triple(int32_t token, ordered_json logprob) const {
    const bool text = wanted_.text && context_.tokenizer != nullptr;
    return ordered_json::array(
        {std::move(logprob), token,
         text ? ordered_json(token_string(*context_.tokenizer, token)) : ordered_json()});
  }
  ordered_json list(const std::vector<TokenLogprob>& logprobs) const {
    ordered_json out = ordered_json::array();
    for (const TokenLogprob& entry : logprobs)
      out.push_back(triple(entry.token, logprob_json(entry.logprob)));
    return out;
  }

  const ServiceContext& context_;
  const NativeLogprobs& wanted_;
  ordered_json tokens_ = ordered_json::array();
  ordered_json top_ = ordered_json::array();
  ordered_json ids_ = ordered_json::array();
};

void write_logprobs(const ServiceContext& context, const Choice& choice, const NativeLogprobs& wanted,
                    ordered_json* out) {
  if (wanted.input) {
    LogprobLists input(context, wanted);
    if (wanted.start == 0 && choice.prompt_logprobs.size() + 1 == choice.spec.prompt.size()) {
      input.add_first(choice.spec.prompt.front());
    }
    for (const TokenOutput& output : choice.prompt_logprobs) input.add(output);
    input.write("input", out);
  }
  LogprobLists output(context, wanted);
  for (const TokenOutput& entry : choice.outputs) output.add(entry);
  output.write("output", out);
}

void write_speculation(const SpeculationCounts& counts, ordered_json* info) {
  (*info)["spec_verify_ct"] = counts.verify_steps;
  (*info)["spec_accept_length"] = counts.accept_length();
  (*info)["spec_accept_rate"] = counts.accept_rate();
  (*info)["spec_accept_token_num"] = counts.accepted_tokens;
  (*info)["spec_draft_token_num"] = counts.draft_tokens;
  (*info)["spec_accept_histogram"] = counts.histogram;
}

}  // namespace

double logprob_json(float logprob) {
  return std::isfinite(logprob) ? static_cast<double>(logprob) : -9999.0;
}

ordered_json meta_info(const ServiceContext& context, const Choice& choice, const std::string& id,
                       double seconds, const NativeLogprobs& logprobs) {
  ordered_json info = {{"id", id},
                       {"finish_reason", finish_json(choice)},
                       {"prompt_tokens", choice.spec.prompt.size()},
                       {"weight_version", kWeightVersion},
                       {"num_retractions", choice.retractions}};
  if (logprobs.wanted) write_logprobs(context, choice, logprobs, &info);
  info["completion_tokens"] = choice.output_ids.size();
  info["cached_tokens"] = choice.cached_tokens;
  if (choice.cache_miss) info["prompt_cache_miss"] = cache_miss_json(context, choice);
  info["reasoning_tokens"] = 0;
  if (choice.speculation) write_speculation(*choice.speculation, &info);
  if (seconds >= 0) info["e2e_latency"] = seconds;
  return info;
}

}  // namespace fathom::api
