// What the readers of requests do not tell: messages, tools, content parts, and the answers.
#include <algorithm>

#include "api/openapi.h"

namespace fathom::api {
namespace {

constexpr NamedSchema kSchemas[] = {
    // Requests
    {"ChatMessage", R"({"type": "object", "required": ["role"], "properties": {
        "role": {"type": "string", "description": "system, developer, user, assistant, tool or function, in any case"},
        "content": {"description": "A string or text parts; null where the assistant only calls tools",
                    "anyOf": [{"type": "string"}, {"type": "null"},
                              {"type": "array", "items": {"type": "object", "required": ["type"]}}]},
        "reasoning_content": {"type": ["string", "null"]}, "reasoning": {"type": ["string", "null"]},
        "tool_calls": {"type": ["array", "null"], "items": {"type": "object", "required": ["function"]}},
        "tool_call_id": {"type": ["string", "null"]}, "name": {"type": ["string", "null"]},
        "prefix": {"type": ["boolean", "null"], "description": "On the last message, an assistant's: it is continued"}},
        "description": "Other fields are passed to the chat template."})"},
    {"ChatTool", R"({"type": "object", "required": ["type", "function"], "properties": {
        "type": {"const": "function"},
        "function": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string"}, "description": {"type": ["string", "null"]},
            "parameters": {"type": ["object", "null"], "description": "A JSON schema"},
            "strict": {"type": ["boolean", "null"], "description": "Calls keep to the schema"}}}}})"},
    {"AnthropicBlocks", R"({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object",
        "required": ["type"], "properties": {
          "type": {"enum": ["text", "thinking", "tool_use", "tool_result"]},
          "text": {"type": "string"}, "thinking": {"type": "string"}, "signature": {"type": "string"},
          "id": {"type": "string"}, "name": {"type": "string"}, "input": {"type": "object"},
          "tool_use_id": {"type": "string"}, "is_error": {"type": ["boolean", "null"]},
          "content": {"$ref": "#/components/schemas/AnthropicBlocks"}, "cache_control": {}, "citations": {},
          "caller": {}, "toolset_name": {}}, "additionalProperties": false}}]})"},
    {"AnthropicTool", R"({"type": "object", "required": ["name", "input_schema"], "properties": {
        "type": {"enum": ["custom", null]}, "name": {"type": "string"}, "description": {"type": ["string", "null"]},
        "input_schema": {"type": "object"}, "strict": {"type": ["boolean", "null"]},
        "allowed_callers": {"enum": [["direct"], [], null]}, "cache_control": {}, "eager_input_streaming": {},
        "defer_loading": {"enum": [false, null]}, "input_examples": {"enum": [[], null]}},
        "additionalProperties": false})"},
    {"ResponseInput",
     R"({"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "object",
        "properties": {
          "type": {"enum": ["message", "function_call", "function_call_output", "reasoning"]},
          "role": {"enum": ["user", "assistant", "system", "developer"]},
          "content": {"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "array", "items": {"type": "object"}}]},
          "call_id": {"type": "string"}, "name": {"type": "string"}, "arguments": {"type": "string"},
          "output": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
          "encrypted_content": {"type": ["string", "null"]}, "summary": {"type": "array"},
          "id": {}, "status": {}, "phase": {}, "caller": {}}}}]})"},
    {"ResponseTool", R"({"type": "object", "required": ["type", "name"], "properties": {
        "type": {"const": "function"}, "name": {"type": "string"}, "description": {"type": ["string", "null"]},
        "parameters": {"type": ["object", "null"]}, "strict": {"type": ["boolean", "null"]},
        "allowed_callers": {"enum": [["direct"], [], null]}}})"},
    // Answers
    {"Error", R"({"type": "object", "required": ["error"], "properties": {"error": {"type": "object",
        "required": ["message", "type", "param", "code"], "properties": {
          "message": {"type": "string", "description": "The field, what was got, what was expected"},
          "type": {"type": "string"}, "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}}}})"},
    {"AnthropicError",
     R"({"type": "object", "required": ["type", "error"], "properties": {"type": {"const": "error"},
        "error": {"type": "object", "required": ["type", "message"], "properties": {
          "type": {"type": "string"}, "message": {"type": "string"}}}}})"},
    {"Usage", R"({"type": "object", "properties": {
        "prompt_tokens": {"type": "integer"}, "completion_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"},
        "reasoning_tokens": {"type": "integer"},
        "prompt_tokens_details": {"type": "object", "properties": {"cached_tokens": {"type": "integer"}}},
        "completion_tokens_details": {"type": "object", "properties": {"reasoning_tokens": {"type": "integer"},
            "accepted_prediction_tokens": {"type": "integer"}, "rejected_prediction_tokens": {"type": "integer"}}},
        "prompt_cache_hit_tokens": {"type": "integer"}, "prompt_cache_miss_tokens": {"type": "integer"}}})"},
    {"Logprobs",
     R"({"type": ["object", "null"], "properties": {"content": {"type": "array", "items": {"type": "object",
        "properties": {"token": {"type": "string"}, "bytes": {"type": ["array", "null"]}, "logprob": {"type": "number"},
          "top_logprobs": {"type": "array", "items": {"type": "object", "properties": {
            "token": {"type": "string"}, "bytes": {"type": ["array", "null"]}, "logprob": {"type": "number"}}}}}}}}})"},
    {"ToolCalls", R"({"type": ["array", "null"], "items": {"type": "object", "properties": {
        "index": {"type": "integer"}, "id": {"type": "string"}, "type": {"const": "function"},
        "function": {"type": "object", "properties": {
          "name": {"type": "string"}, "arguments": {"type": "string", "description": "JSON as the model wrote it"}}}}}})"},
    {"ChatCompletion", R"({"type": "object", "properties": {
        "id": {"type": "string"}, "object": {"const": "chat.completion"}, "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {"type": "array", "items": {"type": "object", "properties": {
          "index": {"type": "integer"},
          "message": {"type": "object", "properties": {
            "role": {"const": "assistant"}, "content": {"type": "string"},
            "reasoning_content": {"type": ["string", "null"]}, "reasoning": {"type": ["string", "null"]},
            "tool_calls": {"$ref": "#/components/schemas/ToolCalls"}}},
          "logprobs": {"$ref": "#/components/schemas/Logprobs"},
          "finish_reason": {"enum": ["stop", "length", "tool_calls", "abort"]},
          "matched_stop": {"type": ["string", "integer", "null"]},
          "prompt_token_ids": {"type": "array"}, "response_token_ids": {"type": "array"},
          "meta_info": {"$ref": "#/components/schemas/MetaInfo"}}}},
        "usage": {"$ref": "#/components/schemas/Usage"},
        "metadata": {"type": "object", "properties": {"weight_version": {"type": "string"}}}}})"},
    {"ChatCompletionChunk", R"({"type": "object", "properties": {
        "id": {"type": "string"}, "object": {"const": "chat.completion.chunk"}, "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {"type": "array", "items": {"type": "object", "properties": {
          "index": {"type": "integer"},
          "delta": {"type": "object", "properties": {
            "role": {"const": "assistant"}, "content": {"type": "string"},
            "reasoning_content": {"type": ["string", "null"]}, "reasoning": {"type": ["string", "null"]},
            "tool_calls": {"$ref": "#/components/schemas/ToolCalls"}}},
          "logprobs": {"$ref": "#/components/schemas/Logprobs"},
          "finish_reason": {"enum": ["stop", "length", "tool_calls", "abort", null]},
          "matched_stop": {"type": ["string", "integer", "null"]}}}},
        "usage": {"$ref": "#/components/schemas/Usage"}}})"},
    {"Completion", R"({"type": "object", "properties": {
        "id": {"type": "string"}, "object": {"const": "text_completion"}, "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {"type": "array", "items": {"type": "object", "properties": {
          "index": {"type": "integer"}, "text": {"type": "string"},
          "logprobs": {"type": ["object", "null"], "properties": {
            "text_offset": {"type": "array"}, "token_logprobs": {"type": "array"}, "tokens": {"type": "array"},
            "top_logprobs": {"type": "array"}}},
          "finish_reason": {"enum": ["stop", "length", "abort", null]},
          "matched_stop": {"type": ["string", "integer", "null"]}}}},
        "usage": {"$ref": "#/components/schemas/Usage"},
        "metadata": {"type": "object", "properties": {"weight_version": {"type": "string"}}}}})"},
    {"ResponseItem", R"({"type": "object", "properties": {
        "id": {"type": "string"}, "type": {"enum": ["reasoning", "message", "function_call"]},
        "status": {"enum": ["in_progress", "completed", "incomplete"]}, "role": {"const": "assistant"},
        "summary": {"type": "array"}, "encrypted_content": {"type": ["string", "null"]},
        "content": {"type": "array", "items": {"$ref": "#/components/schemas/ResponsePart"}},
        "call_id": {"type": "string"}, "name": {"type": "string"}, "arguments": {"type": "string"}}})"},
    {"ResponsePart", R"({"type": "object", "properties": {
        "type": {"enum": ["output_text", "reasoning_text"]}, "text": {"type": "string"},
        "annotations": {"type": "array"}, "logprobs": {"type": "array"}}})"},
    {"Response", R"({"type": "object", "properties": {
        "id": {"type": "string"}, "object": {"const": "response"}, "created_at": {"type": "integer"},
        "completed_at": {"type": "integer"}, "status": {"enum": ["in_progress", "completed", "incomplete", "failed"]},
        "background": {"const": false}, "error": {"type": ["object", "null"]},
        "incomplete_details": {"type": ["object", "null"]}, "instructions": {"type": ["string", "null"]},
        "model": {"type": "string"}, "output": {"type": "array", "items": {"$ref": "#/components/schemas/ResponseItem"}},
        "previous_response_id": {"type": "null"}, "store": {"const": false}, "truncation": {"const": "disabled"},
        "usage": {"type": ["object", "null"], "properties": {
          "input_tokens": {"type": "integer"}, "output_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"},
          "input_tokens_details": {"type": "object", "properties": {
            "cached_tokens": {"type": "integer"}, "cache_write_tokens": {"type": "integer"}}},
          "output_tokens_details": {"type": "object", "properties": {"reasoning_tokens": {"type": "integer"}}}}},
        "tools": {"type": "array"}, "tool_choice": {}, "parallel_tool_calls": {"type": "boolean"},
        "reasoning": {"type": "object"}, "text": {"type": "object"}, "top_logprobs": {"type": "integer"},
        "max_output_tokens": {"type": ["integer", "null"]}, "temperature": {"type": "number"}, "top_p": {"type": "number"},
        "metadata": {"type": "object"}, "user": {}}})"},
    {"ResponseEvent", R"({"type": "object", "required": ["type", "sequence_number"], "properties": {
        "type": {"enum": ["response.created", "response.in_progress", "response.output_item.added",
          "response.content_part.added", "response.reasoning_text.delta", "response.reasoning_text.done",
          "response.output_text.delta", "response.output_text.done", "response.function_call_arguments.delta",
          "response.function_call_arguments.done", "response.content_part.done", "response.output_item.done",
          "response.completed", "response.incomplete", "response.failed"]},
        "sequence_number": {"type": "integer"}, "response": {"$ref": "#/components/schemas/Response"},
        "item": {"$ref": "#/components/schemas/ResponseItem"}, "part": {"$ref": "#/components/schemas/ResponsePart"},
        "item_id": {"type": "string"}, "output_index": {"type": "integer"}, "content_index": {"type": "integer"},
        "delta": {"type": "string"}, "text": {"type": "string"}, "name": {"type": "string"},
        "arguments": {"type": "string"}, "logprobs": {"type": "array"}}})"},
    {"AnthropicUsage", R"({"type": "object", "properties": {
        "input_tokens": {"type": "integer", "description": "Without those read from the prefix cache"},
        "cache_creation_input_tokens": {"type": "integer"}, "cache_read_input_tokens": {"type": "integer"},
        "output_tokens": {"type": "integer"},
        "output_tokens_details": {"type": "object", "properties": {"thinking_tokens": {"type": "integer"}}},
        "service_tier": {"const": "standard"}}})"},
    {"AnthropicContent", R"({"type": "object", "properties": {
        "type": {"enum": ["text", "thinking", "tool_use"]}, "text": {"type": "string"}, "thinking": {"type": "string"},
        "signature": {"type": "string"}, "id": {"type": "string"}, "name": {"type": "string"},
        "input": {"type": "object", "additionalProperties": true,
                  "description": "{\"INVALID_JSON\": text} where the model wrote no JSON object"}}})"},
    {"AnthropicMessage", R"({"type": "object", "properties": {
        "id": {"type": "string"}, "type": {"const": "message"}, "role": {"const": "assistant"},
        "model": {"type": "string"}, "content": {"type": "array", "items": {"$ref": "#/components/schemas/AnthropicContent"}},
        "stop_reason": {"enum": ["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded", null]},
        "stop_sequence": {"type": ["string", "null"]}, "usage": {"$ref": "#/components/schemas/AnthropicUsage"}}})"},
    {"AnthropicEvent", R"({"type": "object", "required": ["type"], "properties": {
        "type": {"enum": ["message_start", "ping", "content_block_start", "content_block_delta", "content_block_stop",
                          "message_delta", "message_stop", "error"]},
        "message": {"$ref": "#/components/schemas/AnthropicMessage"}, "index": {"type": "integer"},
        "content_block": {"$ref": "#/components/schemas/AnthropicContent"},
        "delta": {"type": "object", "properties": {
          "type": {"enum": ["text_delta", "thinking_delta", "signature_delta", "input_json_delta"]},
          "text": {"type": "string"}, "thinking": {"type": "string"}, "signature": {"type": "string"},
          "partial_json": {"type": "string"}, "stop_reason": {"type": "string"},
          "stop_sequence": {"type": ["string", "null"]}}},
        "usage": {"$ref": "#/components/schemas/AnthropicUsage"},
        "error": {"type": "object"}}})"},
    {"AnthropicTokenCount", R"({"type": "object", "properties": {"input_tokens": {"type": "integer"}}})"},
    {"MetaInfo", R"({"type": "object", "properties": {
        "id": {"type": "string"}, "finish_reason": {"type": ["object", "null"], "additionalProperties": true},
        "prompt_tokens": {"type": "integer"}, "completion_tokens": {"type": "integer"},
        "cached_tokens": {"type": "integer"}, "reasoning_tokens": {"type": "integer"},
        "weight_version": {"type": "string"}, "num_retractions": {"type": "integer"}, "e2e_latency": {"type": "number"},
        "spec_verify_ct": {"type": "integer"}, "spec_accept_length": {"type": "number"},
        "spec_accept_rate": {"type": "number"}, "spec_accept_token_num": {"type": "integer"},
        "spec_draft_token_num": {"type": "integer"},
        "spec_accept_histogram": {"type": "array", "items": {"type": "integer"}},
        "input_token_logprobs": {"type": "array"}, "input_top_logprobs": {"type": "array"},
        "input_token_ids_logprobs": {"type": "array"}, "output_token_logprobs": {"type": "array"},
        "output_top_logprobs": {"type": "array"}, "output_token_ids_logprobs": {"type": "array"}}})"},
    {"GeneratedOne", R"({"type": "object", "properties": {
        "text": {"type": "string"}, "output_ids": {"type": "array", "items": {"type": "integer"}},
        "prompt_token_ids": {"type": "array", "items": {"type": "integer"}}, "index": {"type": "integer"},
        "meta_info": {"$ref": "#/components/schemas/MetaInfo"}}})"},
    {"Generated", R"({"anyOf": [{"$ref": "#/components/schemas/GeneratedOne"},
        {"type": "array", "items": {"$ref": "#/components/schemas/GeneratedOne"}}]})"},
    {"Tokens", R"({"type": "object", "properties": {
        "tokens": {"type": "array"}, "count": {"anyOf": [{"type": "integer"}, {"type": "array"}]},
        "max_model_len": {"type": "integer"}}})"},
    {"Text", R"({"type": "object", "properties": {"text": {"anyOf": [{"type": "string"},
        {"type": "array", "items": {"type": "string"}}]}}})"},
    {"Prompt",
     R"({"type": "object", "properties": {"prompt": {"type": "string"}, "count": {"type": "integer"}}})"},
    {"SeparatedReasoning", R"({"type": "object", "properties": {"reasoning_text": {"type": "string"},
        "text": {"type": "string"}, "blocks": {"type": "array", "items": {"type": "object", "properties": {
          "type": {"enum": ["reasoning", "text"]}, "text": {"type": "string"}}}}}})"},
    {"ParsedCalls", R"({"type": "object", "properties": {"normal_text": {"type": "string"},
        "calls": {"type": "array", "items": {"type": "object", "properties": {
          "tool_index": {"type": "integer"}, "name": {"type": "string"}, "parameters": {"type": "string"}}}}}})"},
    {"Model", R"({"type": "object", "properties": {
        "id": {"type": "string"}, "object": {"const": "model"}, "created": {"type": "integer"},
        "owned_by": {"type": "string"}, "root": {"type": "string"}, "parent": {"type": "null"},
        "max_model_len": {"type": "integer"}}})"},
    {"ModelList", R"({"type": "object", "properties": {"object": {"const": "list"},
        "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}}})"},
    {"ModelInfo", R"({"type": "object", "additionalProperties": true})"},
    {"ServerInfo", R"({"type": "object", "additionalProperties": true})"},
    {"Loads", R"({"type": "object", "additionalProperties": true})"},
    {"OpenApi", R"({"type": "object", "additionalProperties": true})"},
};

struct FieldSchema {
  std::string_view operations;  // names, separated by blanks
  std::string_view path;
  std::string_view json;
};

constexpr std::string_view kChats = "chat tokenize applyTemplate";
constexpr std::string_view kAnthropic = "anthropicMessage anthropicCountTokens";

constexpr FieldSchema kFieldSchemas[] = {
    {kChats, "messages",
     R"({"type": ["array", "null"], "items": {"$ref": "#/components/schemas/ChatMessage"}})"},
    {"chat tokenize applyTemplate parseFunctionCall separateReasoning", "tools",
     R"({"type": ["array", "null"], "items": {"$ref": "#/components/schemas/ChatTool"}})"},
    {kChats, "tool_choice",
     R"({"anyOf": [{"enum": ["auto", "none", "required", null]}, {"type": "object", "properties": {
        "type": {"const": "function"}, "function": {"type": "object", "properties": {"name": {"type": "string"}}}}}]})"},
    {kChats, "reasoning_effort",
     R"({"anyOf": [{"enum": ["none", "minimal", "low", "medium", "high", "xhigh", "max", null]},
                                     {"type": "number", "minimum": 0, "maximum": 0.99}]})"},
    {"chat tokenize applyTemplate respond", "reasoning.effort",
     R"({"anyOf": [{"enum": ["none", "minimal", "low", "medium", "high", "xhigh", "max", null]},
                   {"type": "number", "minimum": 0, "maximum": 0.99}]})"},
    {kChats, "thinking.type", R"({"enum": ["enabled", "disabled"]})"},
    {kAnthropic, "system",
     R"({"anyOf": [{"$ref": "#/components/schemas/AnthropicBlocks"}, {"type": "null"}]})"},
    {kAnthropic, "messages", R"({"type": "array", "minItems": 1, "items": {"type": "object",
        "required": ["role", "content"], "properties": {"role": {"enum": ["user", "assistant", "system"]},
          "content": {"$ref": "#/components/schemas/AnthropicBlocks"}}, "additionalProperties": false}})"},
    {kAnthropic, "tools",
     R"({"type": ["array", "null"], "items": {"$ref": "#/components/schemas/AnthropicTool"}})"},
    {kAnthropic, "thinking.type", R"({"enum": ["enabled", "adaptive", "disabled"]})"},
    {kAnthropic, "tool_choice.type", R"({"enum": ["auto", "any", "tool", "none"]})"},
    {kAnthropic, "speed", R"({"enum": ["standard", null]})"},
    {"respond", "input", R"({"$ref": "#/components/schemas/ResponseInput"})"},
    {"respond", "tools",
     R"({"type": ["array", "null"], "items": {"$ref": "#/components/schemas/ResponseTool"}})"},
    {"respond", "tool_choice",
     R"({"anyOf": [{"enum": ["auto", "none", "required", null]}, {"type": "object", "properties": {
        "type": {"enum": ["function", "allowed_tools"]}, "name": {"type": "string"},
        "mode": {"enum": ["auto", "required"]}, "tools": {"type": "array"}}}]})"},
    {"respond", "include", R"({"type": ["array", "null"], "items": {
        "enum": ["message.output_text.logprobs", "reasoning.encrypted_content"]}})"},
    {"respond", "truncation", R"({"enum": ["disabled", null]})"},
    {"respond", "reasoning.summary", R"({"enum": ["auto", null]})"},
    {"respond", "reasoning.generate_summary", R"({"enum": ["auto", null]})"},
    {"complete", "prompt", R"({"anyOf": [{"type": "string"}, {"type": "array"}]})"},
    {"tokenize", "prompt",
     R"({"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "array", "items": {"type": "string"}}]})"},
    {"detokenize", "tokens", R"({"type": "array"})"},
    {"generate", "text",
     R"({"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "array", "items": {"type": "string"}}]})"},
    {"chat generate complete", "json_schema", R"({"type": ["object", "string", "null"]})"},
    {"chat complete generate", "seed", R"({"type": ["integer", "null"]})"},
    {"abort", "rid",
     R"({"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "array", "items": {"type": "string"}}]})"},
};

bool holds(std::string_view names, std::string_view name) {
  while (!names.empty()) {
    const size_t end = std::min(names.find(' '), names.size());
    if (names.substr(0, end) == name) return true;
    names.remove_prefix(std::min(end + 1, names.size()));
  }
  return false;
}

}  // namespace

std::span<const NamedSchema> written_schemas() {
  return kSchemas;
}

std::string_view written_field_schema(std::string_view operation, std::string_view path) {
  for (const FieldSchema& field : kFieldSchemas) {
    if (field.path == path && holds(field.operations, operation)) return field.json;
  }
  return {};
}

}  // namespace fathom::api
