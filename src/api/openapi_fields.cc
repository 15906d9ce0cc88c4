// What the fields of requests mean, for /openapi.json.
#include <algorithm>

#include "api/openapi.h"

namespace fathom::api {
namespace {

struct FieldText {
  std::string_view path;  // the whole one, or its last name
  std::string_view text;
};

constexpr FieldText kTexts[] = {
    {"model", "The served model's name, default, or nothing"},
    {"messages", "The conversation"},
    {"system", "Text before the conversation"},
    {"prompt", "The text, or token ids, to go on from; or several"},
    {"text", "The text"},
    {"input", "The conversation"},
    {"instructions", "Text before the conversation"},
    {"input_ids", "Token ids instead of text"},
    {"tokens", "Token ids, or lists of them"},
    {"suffix", "What comes after the text that is to be written: the model fills the middle"},
    {"echo", "The answer begins with the prompt"},
    {"best_of", "As n"},
    {"n", "Answers to each prompt"},
    {"temperature", "0 takes the likeliest token"},
    {"top_p", "Only the likeliest tokens that together have this probability"},
    {"top_k", "Only so many of the likeliest tokens; -1: all"},
    {"min_p", "Only tokens with at least this share of the likeliest one's probability"},
    {"repetition_penalty", "Divides the logits of tokens that are there already"},
    {"frequency_penalty", "Lowers tokens by how often they are in the answer"},
    {"presence_penalty", "Lowers tokens that are in the answer"},
    {"logit_bias", "From token id to what is added to its logit"},
    {"seed", "The same request with the same seed gives the same answer"},
    {"sampling_seed", "The same request with the same seed gives the same answer"},
    {"max_tokens", "The largest number of new tokens"},
    {"max_completion_tokens", "The largest number of new tokens; wins over max_tokens"},
    {"max_output_tokens", "The largest number of new tokens, thoughts included"},
    {"max_new_tokens", "The largest number of new tokens; null: until the context is full"},
    {"min_tokens", "No end before so many new tokens"},
    {"min_new_tokens", "No end before so many new tokens"},
    {"stop", "Texts that end the answer"},
    {"stop_sequences", "Texts that end the answer"},
    {"stop_token_ids", "Tokens that end the answer"},
    {"ignore_eos", "The model's own end tokens do not end the answer"},
    {"no_stop_trim", "What ended the answer stays in it"},
    {"skip_special_tokens", "Special tokens are left out of the text"},
    {"split_special_tokens", "Special tokens in what clients write are plain text"},
    {"add_special_tokens", "The beginning-of-sentence token is added"},
    {"response_format", "The form of the output"},
    {"response_format.type", "text, json_object or json_schema"},
    {"response_format.json_schema", "{name, schema, strict}"},
    {"output_format", "The form of the output"},
    {"format", "The form of the output"},
    {"output_config", "Effort and form of the output"},
    {"text.format.schema", "A JSON schema that the output keeps"},
    {"schema", "A JSON schema that the output keeps"},
    {"strict", "Whether keywords that are not enforced are refused, or dropped"},
    {"format.type", "text, json_object or json_schema"},
    {"output_format.type", "text, json_object or json_schema"},
    {"json_schema", "A JSON schema that the output keeps"},
    {"regex", "A regular expression that the whole output matches"},
    {"ebnf", "A grammar that the output keeps, from the rule root on"},
    {"structural_tag", "Texts that begin tagged parts of the output, and the form of each part"},
    {"thinking_budget", "The most tokens of thoughts: they are closed there, and the answer begins"},
    {"max_thinking_tokens", "As thinking_budget"},
    {"budget_tokens", "The most tokens of thoughts: they are closed there, and the answer begins"},
    {"custom_logit_processor",
     "A known class of logit processor, as the reference system's client writes it"},
    {"custom_params", "What the logit processor is told"},
    {"explain_cache", "The usage says how much of the prompt was cached, and why the rest was not"},
    {"task", "A task's prompt format, of models that have such"},
    {"tools", "What the model may call"},
    {"tool_choice", "Whether, and what, the model must call"},
    {"tool_choice.name", "The tool that must be called"},
    {"disable_parallel_tool_use", "The answer ends after its first call"},
    {"parallel_tool_calls", "False: the answer ends after its first call"},
    {"reasoning_effort", "none: no thinking; anything else: thinking"},
    {"reasoning", "{enabled, effort}: thinking"},
    {"enabled", "Thinking on or off"},
    {"effort", "How much thinking"},
    {"summary", "Only auto: the reasoning itself is in the answer"},
    {"generate_summary", "Only auto: the reasoning itself is in the answer"},
    {"thinking", "Thinking on or off"},
    {"display", "summarized: thinking blocks hold the thoughts; omitted: they are empty"},
    {"chat_template_kwargs", "Variables of the chat template"},
    {"separate_reasoning", "False: the reasoning stays in the content"},
    {"stream_reasoning", "False: the reasoning is sent once it is whole"},
    {"continue_final_message", "The last message, an assistant's, is continued"},
    {"add_generation_prompt", "The answer is a new message: false only where the last one is continued"},
    {"include", "What else the answer holds"},
    {"logprobs", "Log-probabilities of the tokens"},
    {"top_logprobs", "The likeliest tokens at each place"},
    {"return_logprob", "Log-probabilities of the tokens"},
    {"logprob_start_len", "The prompt's position from which on; -1: the output only"},
    {"top_logprobs_num", "The likeliest tokens at each place"},
    {"token_ids_logprob", "Tokens whose log-probabilities are given at each place"},
    {"return_text_in_logprobs", "Log-probabilities with the tokens' texts"},
    {"return_prompt_token_ids", "The answer holds the prompt's ids"},
    {"return_token_ids", "The answer holds its ids"},
    {"return_meta_info", "The answer holds figures of its own"},
    {"sampling_params", "How tokens are chosen; a list: one for each prompt"},
    {"stream_interval", "Only 1"},
    {"stream", "The answer comes in server-sent events"},
    {"stream_options", "What a stream holds besides"},
    {"include_usage", "A last chunk with the usage"},
    {"continuous_usage_stats", "The usage in every chunk"},
    {"rid", "The request's id, to abort it by"},
    {"abort_all", "Ends every request"},
    {"priority", "Larger is sooner, where the schedule policy looks at it"},
    {"cache_salt", "Prefixes are shared only between equal salts"},
    {"extra_key", "Prefixes are shared only between equal keys"},
    {"data_parallel_rank",
     "The group of ranks that the request must go to; the header X-Data-Parallel-Rank too"},
    {"routed_dp_rank", "data_parallel_rank by another name"},
    {"modalities", "Only text"},
    {"metadata", "Labels; the Responses API repeats them"},
    {"user", "A label"},
    {"truncation", "Only disabled"},
    {"speed", "Only standard"},
    {"reasoning_parser", "The name of a reasoning parser; nothing: the server's own"},
    {"tool_call_parser", "The name of a tool call parser; nothing: the server's own"},
    {"return_blocks", "The parts in their order as well"},
};

}  // namespace

std::string_view describe_field(std::string_view path) {
  const auto find = [](std::string_view wanted) {
    const auto found = std::find_if(std::begin(kTexts), std::end(kTexts),
                                    [&](const FieldText& text) { return text.path == wanted; });
    return found == std::end(kTexts) ? std::string_view() : found->text;
  };
  while (true) {
    const std::string_view text = find(path);
    const size_t dot = path.find('.');
    if (!text.empty() || dot == std::string_view::npos) return text;
    path.remove_prefix(dot + 1);
  }
}

}  // namespace fathom::api
