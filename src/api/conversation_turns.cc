#include "api/conversation_turns.h"

#include <utility>

namespace fathom::api {

using nlohmann::ordered_json;

bool ConversationTurns::last_is(const char* role) const {
  return !messages_.empty() && messages_.back()["role"] == role;
}

ordered_json& ConversationTurns::add(const char* role, std::string text) {
  messages_.push_back({{"role", role}, {"content", std::move(text)}});
  return messages_.back();
}

void ConversationTurns::append(const char* field, const std::string& text) {
  ordered_json& value = messages_.back()[field];
  if (value.is_null()) value = "";
  value.get_ref<std::string&>() += text;
}

void ConversationTurns::continue_user(const std::string& text) {
  if (!last_is("user")) return user(text);
  append("content", "\n" + text);
}

void ConversationTurns::tool_output(std::string call_id, std::string text) {
  add("tool", std::move(text))["tool_call_id"] = std::move(call_id);
}

void ConversationTurns::continue_assistant() {
  if (!last_is("assistant")) add("assistant", "");
}

void ConversationTurns::next_assistant() {
  const bool thoughts =
      last_is("assistant") && messages_.back()["content"] == "" && !messages_.back().contains("tool_calls");
  if (!thoughts) add("assistant", "");
}

void ConversationTurns::assistant_thinking(const std::string& text) {
  if (!text.empty()) append("reasoning_content", text);
}

void ConversationTurns::assistant_call(const std::string& id, const std::string& name,
                                       std::string arguments) {
  messages_.back()["tool_calls"].push_back(
      {{"id", id},
       {"type", "function"},
       {"function", {{"name", name}, {"arguments", std::move(arguments)}}}});
}

ordered_json ConversationTurns::take() {
  for (ordered_json& message : messages_) {
    // Templates test for a null content where the assistant only called tools.
    if (message.contains("tool_calls") && message["content"] == "") message["content"] = nullptr;
  }
  return std::exchange(messages_, ordered_json::array());
}

}  // namespace fathom::api
