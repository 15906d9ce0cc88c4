// The messages and tools of a chat, checked and brought into the form that templates expect: lower-case roles
// (developer becomes system, function becomes tool), text content joined to one string, no nulls. Fields that
// are not OpenAI's are passed to the template as they are.
#pragma once

#include <nlohmann/json.hpp>

#include "api/errors.h"

namespace fathom::api {

inline constexpr size_t kMaxMessages = 16384;
inline constexpr size_t kMaxTools = 128;

Refusal normalize_messages(const nlohmann::ordered_json& messages, nlohmann::ordered_json* out);

// Each tool must be {"type": "function", "function": {"name", "description", "parameters"}}.
Refusal check_tools(const nlohmann::ordered_json& tools);

}  // namespace fathom::api
