#include "api/completion_output.h"

#include "api/cache_report.h"

#include <algorithm>

#include "api/meta_info.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

// OpenAI's four lists side by side, one entry a token.
class LogprobLists {
 public:
  LogprobLists(const ServiceContext& context, bool skip_special, int64_t offset)
      : context_(context), skip_special_(skip_special), offset_(offset) {}

  // A prompt's first token has no log-probability.
  void add(const TokenOutput& output, bool has_logprob = true) {
    tokens_.push_back(name(output.token));
    offsets_.push_back(offset_);
    logprobs_.push_back(has_logprob ? ordered_json(logprob_json(output.logprob)) : ordered_json());
    ordered_json top;
    if (has_logprob) {
      top = ordered_json::object();
      for (const TokenLogprob& other : output.top)
        top.emplace(name(other.token), logprob_json(other.logprob));
      top.emplace(name(output.token), logprob_json(output.logprob));
    }
    top_.push_back(std::move(top));
    advance(output.token);
  }
  int64_t offset() const { return offset_; }
  ordered_json json() && {
    return {{"text_offset", std::move(offsets_)},
            {"token_logprobs", std::move(logprobs_)},
            {"tokens", std::move(tokens_)},
            {"top_logprobs", std::move(top_)}};
  }

 private:
  std::string name(int32_t token) const {
    return context_.tokenizer != nullptr ? token_string(*context_.tokenizer, token) : std::to_string(token);
  }
  // Counts characters by their first bytes; a special token that the text leaves out has no place in it.
  void advance(int32_t token) {
    if (context_.tokenizer == nullptr || (skip_special_ && context_.tokenizer->is_special(token))) return;
    const std::string_view bytes = context_.tokenizer->token_bytes(token);
    offset_ += std::count_if(bytes.begin(), bytes.end(),
                             [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
  }

  const ServiceContext& context_;
  const bool skip_special_;
  int64_t offset_;
  ordered_json tokens_ = ordered_json::array();
  ordered_json offsets_ = ordered_json::array();
  ordered_json logprobs_ = ordered_json::array();
  ordered_json top_ = ordered_json::array();
};

// The lists for the outputs from `first` on; with `prompt`, the prompt's before them.
ordered_json logprobs_json(const ServiceContext& context, const CompletionRequest& request,
                           const Choice& choice, bool prompt, size_t first, int64_t* offset) {
  if (!request.logprobs) return nullptr;
  LogprobLists lists(context, request.sampling.skip_special_tokens, *offset);
  if (prompt) {
    const size_t given = choice.prompt_logprobs.size();
    for (size_t i = 0; i + given < choice.spec.prompt.size(); ++i) {
      TokenOutput unknown;
      unknown.token = choice.spec.prompt[i];
      lists.add(unknown, false);
    }
    for (const TokenOutput& output : choice.prompt_logprobs) lists.add(output);
  }
  for (size_t i = first; i < choice.outputs.size(); ++i) lists.add(choice.outputs[i]);
  *offset = lists.offset();
  return std::move(lists).json();
}

std::string echoed_text(const ServiceContext& context, const CompletionRequest& request,
                        const Choice& choice) {
  if (!request.echo) return {};
  const auto n = static_cast<size_t>(request.sampling.n);
  if (!request.prompts.texts.empty()) return request.prompts.texts[choice.index / n];
  if (context.tokenizer == nullptr) return {};
  return context.tokenizer->decode(choice.spec.prompt, request.sampling.skip_special_tokens);
}

ordered_json head_json(const AnswerHead& head) {
  return {{"id", head.id}, {"object", "text_completion"}, {"created", head.created}, {"model", head.model}};
}

}  // namespace

ordered_json completion_json(const ServiceContext& context, const CompletionRequest& request,
                             const AnswerHead& head, const std::vector<Choice>& choices) {
  ordered_json answer = head_json(head);
  ordered_json& list = answer["choices"] = ordered_json::array();
  for (const Choice& choice : choices) {
    int64_t offset = 0;
    ordered_json logprobs = logprobs_json(context, request, choice, request.echo, 0, &offset);
    list.push_back({{"index", choice.index},
                    {"text", echoed_text(context, request, choice) + choice.text},
                    {"logprobs", std::move(logprobs)},
                    {"finish_reason", finish_reason(*choice.finish)},
                    {"matched_stop", matched_stop(*choice.finish)}});
  }
  answer["usage"] = usage_json(choices, static_cast<size_t>(request.sampling.n));
  add_cache_miss(context, choices, &answer["usage"]);
  answer["metadata"] = {{"weight_version", kWeightVersion}};
  return answer;
}

std::optional<ordered_json> CompletionChunks::advance(const Choice& choice, const std::string& new_text) {
  if (states_.size() <= choice.index) states_.resize(choice.index + 1);
  State& state = states_[choice.index];
  const bool first = !state.begun;
  // Logprobs whose text is still held back wait for it, or for the finish.
  if (new_text.empty() && !choice.finish && !(first && request_.echo)) return std::nullopt;
  state.begun = true;
  ordered_json logprobs =
      logprobs_json(context_, request_, choice, first && request_.echo, state.logprobs_sent, &state.offset);
  state.logprobs_sent = choice.outputs.size();
  const std::string text = first ? echoed_text(context_, request_, choice) + new_text : new_text;
  ordered_json chunk = head_json(head_);
  chunk["choices"] = ordered_json::array(
      {{{"index", choice.index},
        {"text", text},
        {"logprobs", std::move(logprobs)},
        {"finish_reason", choice.finish ? ordered_json(finish_reason(*choice.finish)) : ordered_json()},
        {"matched_stop", choice.finish ? matched_stop(*choice.finish) : ordered_json()}}});
  if (request_.stream.continuous_usage) chunk["usage"] = usage_json({&choice, 1}, 1);
  return chunk;
}

ordered_json CompletionChunks::usage_chunk(const std::vector<Choice>& choices) const {
  ordered_json chunk = head_json(head_);
  chunk["choices"] = ordered_json::array();
  chunk["usage"] = usage_json(choices, static_cast<size_t>(request_.sampling.n));
  add_cache_miss(context_, choices, &chunk["usage"]);
  return chunk;
}

}  // namespace fathom::api
