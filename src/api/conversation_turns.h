// Builds a conversation, in the form that templates expect, from the pieces in which other APIs give it.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace fathom::api {

class ConversationTurns {
 public:
  void system(std::string text) { add("system", std::move(text)); }
  void user(std::string text) { add("user", std::move(text)); }
  // Adds a line to the last message if it is a user's.
  void continue_user(const std::string& text);
  void tool_output(std::string call_id, std::string text);

  // What follows belongs to the last message if it is an assistant's, or to a new one.
  void continue_assistant();
  // The same, but a message that has more than thoughts is not continued.
  void next_assistant();
  void assistant_text(const std::string& text) { append("content", text); }
  void assistant_thinking(const std::string& text);
  void assistant_call(const std::string& id, const std::string& name, std::string arguments);

  // The messages, when the last piece is in.
  nlohmann::ordered_json take();

 private:
  bool last_is(const char* role) const;
  nlohmann::ordered_json& add(const char* role, std::string text);
  void append(const char* field, const std::string& text);

  nlohmann::ordered_json messages_ = nlohmann::ordered_json::array();
};

}  // namespace fathom::api
