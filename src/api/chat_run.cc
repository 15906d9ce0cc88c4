#include "api/chat_run.h"

#include <limits>

namespace fathom::api {
namespace {

// With "tool_choice": "none" the model sees no tools; one that was trained on calls may begin one all the
// same, and its markers would be content.
void forbid_calls(const AnswerTokens& tokens, SamplingParams* params) {
  for (const int32_t token : tokens.call_starts) {
    std::erase_if(params->logit_bias, [token](const auto& entry) { return entry.first == token; });
    params->logit_bias.emplace_back(token, -std::numeric_limits<float>::infinity());
  }
}

}  // namespace

Refusal chat_request_prompt(const ServiceContext& context, const ChatRequest& request, ChatPrompt* out) {
  out->ids = request.input_ids;
  if (!out->ids.empty()) return std::nullopt;
  return make_chat_prompt(context, request.conversation, request.options.cache_namespace, out);
}

Refusal plan_chat(const ServiceContext& context, ChatRequest* request, std::vector<RunSpec>* specs) {
  ChatPrompt prompt;
  if (Refusal refusal = chat_request_prompt(context, *request, &prompt)) return refusal;
  request->answer.format.start = chat_answer_start(context, *request, prompt);
  Length length = resolve_length(context, request->sampling, prompt.ids.size(), request->soft_limit);
  if (length.refusal) return length.refusal;
  request->cut_by_context = request->soft_limit && length.max_new_tokens < *request->soft_limit;

  std::shared_ptr<const TokenMaskSource> mask;
  Refusal refused = make_mask(context, request->sampling.form, request->answer.format.start, &mask);
  if (refused) return refused;

  for (int i = 0; i < request->sampling.n; ++i) {
    RunSpec& spec = specs->emplace_back();
    spec.rid = request->options.rid;
    spec.prompt = prompt.ids;
    spec.sampling = request->sampling.for_choice(i, length.max_new_tokens);
    if (request->conversation.refuses_calls) forbid_calls(context.answer_tokens, &spec.sampling);
    spec.logprobs.output = request->logprobs;
    spec.logprobs.top = request->top_logprobs;
    spec.text = request->sampling.text_options();
    spec.answer = request->answer;
    spec.mask = mask;
    Refusal refusal = apply_logit_rules(context, request->sampling.rules, &spec);
    if (refusal) return refusal;
    spec.priority = request->options.priority;
    spec.cache_namespace = request->options.cache_namespace;
    spec.data_parallel_rank = request->options.data_parallel_rank;
    spec.explain_cache = request->options.explain_cache;
    spec.turn_text = prompt.marked;
  }
  return std::nullopt;
}

}  // namespace fathom::api
