// POST /v1/chat/completions: the request's fields, and the prompt they make.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/context.h"
#include "api/request_options.h"
#include "api/sampling_fields.h"

namespace fathom::api {

// The conversation as the template sees it; also read by /tokenize.
struct Conversation {
  enum class ToolChoice { kNone, kAuto, kRequired, kNamed };
  nlohmann::ordered_json messages;  // normalised: see chat_messages.h
  nlohmann::ordered_json tools;     // null, or a list
  ToolChoice tool_choice = ToolChoice::kNone;
  std::string named_tool;                  // kNamed
  bool refuses_calls = false;              // "none" was asked for: the answer must not call
  nlohmann::ordered_json response_format;  // null, or a schema that the prompt has words for
  nlohmann::ordered_json template_kwargs = nlohmann::ordered_json::object();
  std::optional<int32_t> thinking_budget;  // thinking.budget_tokens
  // Whether special tokens that clients write are plain text; nothing: as the server has it.
  std::optional<bool> split_special_tokens;
  // The last message is an unfinished assistant's one, taken out of `messages`: the answer goes on after it.
  bool continues = false;
  std::string continued_reasoning;
  std::string continued_content;
};

struct ChatRequest {
  std::string model;
  Conversation conversation;
  std::vector<int32_t> input_ids;  // instead of the conversation, when not empty
  SamplingRequest sampling;
  // Instead of sampling.max_new_tokens: a limit that gives way to the context's.
  std::optional<int32_t> soft_limit;
  bool cut_by_context = false;  // it did; set by plan_chat
  AnswerOptions answer;         // without the start, which the prompt tells
  bool logprobs = false;
  int32_t top_logprobs = 0;
  StreamOptions stream;
  RequestOptions options;
  bool return_prompt_token_ids = false;
  bool return_token_ids = false;
  bool return_meta_info = false;
};

Refusal read_chat_request(const ServiceContext& context, const nlohmann::ordered_json& body,
                          ChatRequest* out);

// messages, tools, tool_choice, chat_template_kwargs, the thinking switches and the continuation flags.
// `model`: the name that the request gives.
void read_conversation(const ServiceContext& context, const std::string& model, Fields& fields,
                       Conversation* out);

// The template's variables where the request sets none: the server's, and what the hosted API's model names
// mean (deepseek-reasoner thinks, deepseek-chat does not) where they are further names of the served model.
nlohmann::ordered_json default_kwargs(const ServiceContext& context, const std::string& model);

// The template's variables for thinking. An effort is one of OpenAI's and DeepSeek's names or a number; other
// than "none" it switches thinking on. False, with the error in `fields`, when it is no effort.
void set_thinking(bool thinking, nlohmann::ordered_json* kwargs);
bool read_effort(std::string_view name, const nlohmann::ordered_json& effort, Fields& fields,
                 nlohmann::ordered_json* kwargs);

// How the answer to `out`'s conversation is taken apart, and the grammar that forced or strict calls need.
// The conversation, the output's form and answer.parallel_calls must have been read.
void set_answer_options(const ServiceContext& context, Fields& fields, ChatRequest* out);

struct ChatPrompt {
  std::vector<int32_t> ids;
  std::string text;  // as the template wrote it, special tokens typed by users included
  std::shared_ptr<const std::string> marked;  // what was tokenised: users' special tokens are broken by marks
};

// Renders and tokenises. The template writes the BOS token itself, so none is added. Answers given before, in
// this cache namespace, become the tokens they were made of.
Refusal make_chat_prompt(const ServiceContext& context, const Conversation& conversation,
                         const std::string& cache_namespace, ChatPrompt* out);

// How the answer to a prompt begins.
text::ReasoningStart chat_answer_start(const ServiceContext& context, const ChatRequest& request,
                                       const ChatPrompt& prompt);

}  // namespace fathom::api
