// The routes' descriptions and example requests.
#include "api/openapi.h"

namespace fathom::api {
namespace {

constexpr std::string_view kChatExample = R"({
  "messages": [{"role": "user", "content": "What is 7 + 5?"}], "max_tokens": 64, "stream": true,
  "stream_options": {"include_usage": true}, "reasoning": {"enabled": true}, "thinking": {"type": "enabled"},
  "response_format": {"type": "json_schema", "json_schema": {"name": "sum", "schema": {"type": "object"}}}})";
constexpr std::string_view kToolExample = R"({
  "messages": [{"role": "user", "content": "What time is it in Rome?"}],
  "tools": [{"type": "function", "function": {"name": "get_time", "description": "Get the time in a city",
             "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}],
  "tool_choice": {"type": "function", "function": {"name": "get_time"}}})";
constexpr std::string_view kCompletionExample =
    R"({"prompt": "Once upon a time", "max_tokens": 16, "stream": true, "stream_options": {"include_usage": true},
        "response_format": {"type": "text"}})";
constexpr std::string_view kGenerateExample =
    R"({"input_ids": [1, 2, 3], "sampling_params": {"temperature": 0, "max_new_tokens": 16}})";
constexpr std::string_view kMessagesExample = R"({
  "max_tokens": 64, "system": "You are brief.", "messages": [{"role": "user", "content": "What is 7 + 5?"}],
  "thinking": {"type": "adaptive"}, "metadata": {"user_id": "someone"},
  "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}}})";
constexpr std::string_view kMessagesToolExample = R"({
  "max_tokens": 64, "messages": [{"role": "user", "content": "What time is it in Rome?"}],
  "tools": [{"name": "get_time", "description": "Get the time in a city",
             "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}],
  "tool_choice": {"type": "tool", "name": "get_time", "disable_parallel_tool_use": true},
  "output_format": {"type": "text"}})";
constexpr std::string_view kCountExample = R"({
  "messages": [{"role": "user", "content": "What is 7 + 5?"}], "thinking": {"type": "disabled"},
  "output_config": {"format": {"type": "text"}}, "output_format": {"type": "text"},
  "tools": [{"name": "get_time", "input_schema": {"type": "object"}}], "tool_choice": {"type": "auto"}})";
constexpr std::string_view kResponsesExample = R"({
  "input": "What is 7 + 5?", "instructions": "You are brief.", "max_output_tokens": 64, "stream": true,
  "stream_options": {"include_obfuscation": false}, "reasoning": {"effort": "low"},
  "text": {"format": {"type": "json_schema", "name": "sum", "schema": {"type": "object"}}}})";
constexpr std::string_view kResponsesToolExample = R"({
  "input": [{"role": "user", "content": "What time is it in Rome?"}], "tool_choice": "required",
  "tools": [{"type": "function", "name": "get_time", "parameters": {"type": "object"}}]})";
constexpr std::string_view kConversationExample = R"({
  "messages": [{"role": "user", "content": "Hello"}], "reasoning": {"enabled": false}, "thinking": {"type": "disabled"}})";
constexpr std::string_view kTokenizeExample = R"({"prompt": "Once upon a time"})";
constexpr std::string_view kDetokenizeExample = R"({"tokens": [1, 2, 3]})";
constexpr std::string_view kReasoningExample =
    R"({"text": "<think>7 + 5 is 12.</think>It is 12.", "reasoning_parser": "deepseek-v3", "return_blocks": true})";
constexpr std::string_view kCallsExample =
    R"({"text": "It is noon.", "tool_call_parser": "deepseekv3", "tools": []})";
constexpr std::string_view kAbortExample = R"({"rid": "the request's id"})";

}  // namespace

std::span<const Operation> operations() {
  static const std::vector<Operation> kOperations = {
      {{"/v1/chat/completions", "/chat/completions", "/beta/chat/completions"},
       "chat",
       "Chat, in OpenAI's form",
       {kChatExample, kToolExample},
       {},
       "ChatCompletion",
       "ChatCompletionChunk"},
      {{"/v1/completions", "/completions", "/beta/completions"},
       "complete",
       "Completion of a text",
       {kCompletionExample},
       {"prompt"},
       "Completion",
       "Completion"},
      {{"/v1/responses"},
       "respond",
       "OpenAI's Responses API, without a memory between requests",
       {kResponsesExample, kResponsesToolExample},
       {"input"},
       "Response",
       "ResponseEvent"},
      {{"/v1/messages", "/anthropic/v1/messages"},
       "anthropicMessage",
       "Anthropic's Messages API",
       {kMessagesExample, kMessagesToolExample},
       {"messages", "max_tokens"},
       "AnthropicMessage",
       "AnthropicEvent"},
      {{"/v1/messages/count_tokens", "/anthropic/v1/messages/count_tokens"},
       "anthropicCountTokens",
       "The tokens of a prompt of the Messages API",
       {kCountExample},
       {"messages"},
       "AnthropicTokenCount",
       {}},
      {{"/generate"},
       "generate",
       "The native endpoint: text or ids in, text and ids out",
       {kGenerateExample},
       {},
       "Generated",
       "Generated"},
      {{"/tokenize", "/v1/tokenize"},
       "tokenize",
       "The tokens of a text or of a chat",
       {kTokenizeExample, kConversationExample},
       {},
       "Tokens",
       {}},
      {{"/detokenize", "/v1/detokenize"},
       "detokenize",
       "The text of tokens",
       {kDetokenizeExample},
       {"tokens"},
       "Text",
       {}},
      {{"/apply-template"},
       "applyTemplate",
       "The text of a chat as the model would see it",
       {kConversationExample, kToolExample},
       {"messages"},
       "Prompt",
       {}},
      {{"/separate_reasoning"},
       "separateReasoning",
       "The reasoning and the content of a model's text",
       {kReasoningExample},
       {"text"},
       "SeparatedReasoning",
       {}},
      {{"/parse_function_call"},
       "parseFunctionCall",
       "The calls in a model's text",
       {kCallsExample},
       {"text"},
       "ParsedCalls",
       {}},
      {{"/v1/models", "/models"}, "listModels", "The served model, in a list", {}, {}, "ModelList", {}},
      {{"/v1/models/{model}"}, "getModel", "The served model", {}, {}, "Model", {}},
      {{"/model_info", "/get_model_info"}, "modelInfo", "What the model is", {}, {}, "ModelInfo", {}},
      {{"/server_info", "/get_server_info"},
       "serverInfo",
       "Flags, memory and figures",
       {},
       {},
       "ServerInfo",
       {}},
      {{"/v1/loads", "/get_load"}, "loads", "How much work there is", {}, {}, "Loads", {}},
      {{"/health", "/ping"}, "health", "200 while the engine is alive", {}, {}, {}, {}},
      {{"/health_generate"}, "healthGenerate", "200 once any work advances", {}, {}, {}, {}},
      {{"/ready"}, "ready", "200 while work is taken", {}, {}, {}, {}},
      {{"/abort_request"}, "abort", "Ends requests", {kAbortExample}, {}, {}, {}},
      {{"/flush_cache"}, "flushCache", "Forgets cached prefixes; 400 while requests run", {}, {}, {}, {}},
      {{"/start_profile"}, "startProfile", "Records the engine's steps from now on", {}, {}, {}, {}},
      {{"/stop_profile"},
       "stopProfile",
       "The steps since /start_profile as a trace for Perfetto or chrome://tracing",
       {},
       {},
       {},
       {}},
      {{"/metrics"}, "metrics", "Figures for Prometheus; 404 without --enable-metrics", {}, {}, {}, {}},
      {{"/openapi.json"}, "openapi", "This document", {}, {}, "OpenApi", {}},
  };
  return kOperations;
}

}  // namespace fathom::api
