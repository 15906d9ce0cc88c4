// The system text, messages and tools of Anthropic's Messages API, checked and brought into the form that
// templates expect (see chat_messages.h).
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "api/chat_request.h"
#include "api/errors.h"

namespace fathom::api {

// How Anthropic's API passes on arguments that are no JSON object: {"INVALID_JSON": text}.
inline constexpr const char* kInvalidJson = "INVALID_JSON";

// Fills out->messages and the continuation: a last message of the assistant's is continued. `system` is null,
// a string or a list of text blocks.
Refusal read_anthropic_messages(const Limits& limits, const nlohmann::ordered_json* system,
                                const nlohmann::ordered_json& messages, Conversation* out);

// Tools of the client's own as chat's function tools; the hosted service's tools are refused by name.
Refusal read_anthropic_tools(const Limits& limits, const nlohmann::ordered_json& tools,
                             nlohmann::ordered_json* out);

// `value` as one line with blanks after commas and colons, which is how DeepSeek's models write arguments.
std::string spaced_json(const nlohmann::ordered_json& value);

}  // namespace fathom::api
