// The input items and tools of OpenAI's Responses API, checked and brought into the form that templates
// expect (see chat_messages.h).
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "api/errors.h"
#include "api/limits.h"

namespace fathom::api {

// Before the thoughts in a reasoning item's encrypted_content, which this server does not encrypt.
inline constexpr std::string_view kPlainReasoning = "plain:";

// `input` is a string or a list of items, `instructions` the system text before them or empty. The reasoning,
// the message and the calls of one answer become one message.
Refusal read_response_input(const Limits& limits, const std::string& instructions,
                            const nlohmann::ordered_json& input, nlohmann::ordered_json* messages);

// `echo`: the tools as the answer repeats them; `chat`: as chat's function tools. The hosted service's tools
// are refused by name.
Refusal read_response_tools(const Limits& limits, const nlohmann::ordered_json& tools,
                            nlohmann::ordered_json* echo, nlohmann::ordered_json* chat);

}  // namespace fathom::api
