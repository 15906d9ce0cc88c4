// The messages and tools of a chat, checked and brought into the form that templates expect: lower-case roles
// (developer becomes system, function becomes tool), text content joined to one string, no nulls. Fields that
// are not OpenAI's are passed to the template as they are. DeepSeek's own encodings keep developer, V4's know
// latest_reminder, and system and developer messages may carry tools and a response_format.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "api/errors.h"
#include "api/limits.h"
#include "text/encoding/prompt_encoding.h"

namespace fathom::api {

// `encoding`: what takes the place of a template, if anything does.
Refusal normalize_messages(const Limits& limits, const nlohmann::ordered_json& messages,
                           std::optional<text::PromptEncoding> encoding, nlohmann::ordered_json* out);

// Each tool must be {"type": "function", "function": {"name", "description", "parameters"}}. Errors name
// `field`.
Refusal check_tools(const Limits& limits, const nlohmann::ordered_json& tools,
                    const std::string& field = "tools");

}  // namespace fathom::api
