// What V3.2's and V4's encoders share. Internal to text/encoding.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace fathom::text::encoding {

using nlohmann::ordered_json;

inline constexpr std::string_view kBegin = "<｜begin▁of▁sentence｜>";
inline constexpr std::string_view kEnd = "<｜end▁of▁sentence｜>";
inline constexpr std::string_view kUser = "<｜User｜>";
inline constexpr std::string_view kAssistant = "<｜Assistant｜>";

// The value of `key`, or null when it is absent, null or `value` is no object.
const ordered_json* get(const ordered_json& value, std::string_view key);
// The string under `key`, or empty.
std::string_view text_of(const ordered_json& message, std::string_view key);

struct Conversation {
  // `variables` must outlive it.
  explicit Conversation(const ordered_json& variables);
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;

  // By index; `original` is the place among the request's messages, for errors.
  struct Message {
    std::string_view role;
    const ordered_json* fields = nullptr;  // never null
    const ordered_json* tools = nullptr;   // a list that is not empty, or null
    const ordered_json* response_format = nullptr;
    size_t original = 0;
  };
  std::vector<Message> messages;
  bool thinking = false;
  bool drop_thinking = true;

 private:
  ordered_json added_system_;
};

Error fault(const Conversation::Message& message, std::string_view what);

// The functions of OpenAI's tools, one JSON object a line.
std::string tool_schemas(const ordered_json& tools);
// The text that asks for answers of a schema.
std::string response_format_text(const ordered_json& schema);

// "\n\n<｜DSML｜BLOCK>...</｜DSML｜BLOCK>" of the message's tool calls; empty when it has none. Arguments
// that are not a JSON object are an error or, with `lenient`, one parameter named "arguments".
Result<std::string> dsml_calls(const Conversation::Message& message, std::string_view block, bool lenient);

Result<std::string> encode_v32(const Conversation& conversation, size_t max_bytes);

struct V4Options {
  std::string effort_text;  // before everything else
  std::string task;         // of the last user message; empty: none
};
Result<std::string> encode_v4(const Conversation& conversation, const V4Options& options, size_t max_bytes);

}  // namespace fathom::text::encoding
