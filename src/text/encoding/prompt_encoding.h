// DeepSeek's own prompt formats, for checkpoints that ship a Python encoder instead of a Jinja template:
// V3.2's and V4's, with tool calls in DSML tags.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace fathom::text {

enum class PromptEncoding {
  kV32,
  kV4Preview,  // efforts: only the highest has a text
  kV4,         // efforts: low, high and max
};

// "deepseek-v32", "deepseek-v4-preview", "deepseek-v4".
std::string_view to_string(PromptEncoding encoding);
std::optional<PromptEncoding> parse_prompt_encoding(std::string_view name);

// The encoding of a checkpoint without a template, by config.json's architecture. `encoder` is the text of
// the checkpoint's encoding/encoding_dsv4.py (it is never run), empty where there is none: it tells V4's two
// generations apart.
std::optional<PromptEncoding> find_prompt_encoding(std::string_view architecture, std::string_view encoder);

// The prompt of a conversation, beginning-of-sentence token included. `variables` is what templates get:
//   messages          roles system, developer, user, assistant, tool, and latest_reminder (V4); contents are
//                     strings or null; system and developer may have `tools` and `response_format`, user and
//                     developer a `task` (V4)
//   tools             null or OpenAI's list; they go to the system message
//   response_format   a JSON schema for the system message, where it has none of its own
//   thinking, enable_thinking, reasoning_effort, task (of the last user message; V4)
//   drop_thinking     true by default: leave out the thoughts before the last user's message
// An error is kInvalidArgument and names the message.
Result<std::string> encode_prompt(PromptEncoding encoding, const nlohmann::ordered_json& variables,
                                  size_t max_bytes);

}  // namespace fathom::text
