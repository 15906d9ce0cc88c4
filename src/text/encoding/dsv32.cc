// V3.2: tool results follow the call's turn without a role of their own; thinking goes on after them.
#include "text/encoding/conversation.h"
#include "text/reasoning/reasoning_splitter.h"

namespace fathom::text::encoding {
namespace {

using Message = Conversation::Message;

// The text that tells the model of its tools, as it was trained on it.
constexpr std::string_view kToolsBegin =
    R"(## Tools
You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<｜DSML｜function_calls>" block like the following as part of your reply to the user:
<｜DSML｜function_calls>
<｜DSML｜invoke name="$FUNCTION_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$FUNCTION_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜function_calls>
String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types (numbers, booleans, arrays, objects).
If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. Here is an example:
<｜DSML｜function_calls>
...
</｜DSML｜function_calls>
<function_results>
...
</function_results>
<think>...thinking about results</think>
Here are the functions available in JSONSchema format:
<functions>
)";
constexpr std::string_view kToolsEnd = "\n</functions>\n";

// Blank line, then each part there is.
std::string instructions(const Message& message) {
  std::string out;
  if (message.tools != nullptr) {
    out += "\n\n" + std::string(kToolsBegin) + tool_schemas(*message.tools) + std::string(kToolsEnd);
  }
  if (message.response_format != nullptr) out += "\n\n" + response_format_text(*message.response_format);
  return out;
}

class V32Encoder {
 public:
  explicit V32Encoder(const Conversation& conversation) : thinking_(conversation.thinking) {
    const size_t last = last_user(conversation.messages);
    const bool drop = thinking_ && conversation.drop_thinking;
    for (size_t i = 0; i < conversation.messages.size(); ++i) {
      const Message& message = conversation.messages[i];
      // Developers' words hold for one turn.
      if (drop && i < last && message.role == "developer") continue;
      messages_.push_back(message);
    }
    last_user_ = last_user(messages_);
  }

  Result<std::string> run(size_t max_bytes) {
    std::string prompt(kBegin);
    for (size_t i = 0; i < messages_.size(); ++i) {
      FATHOM_ASSIGN(const std::string text, render(i));
      prompt += text;
      if (prompt.size() > max_bytes) return fault(messages_[i], "the prompt is too long");
    }
    FATHOM_TRY(check_results());
    return prompt;
  }

 private:
  static constexpr size_t kNone = static_cast<size_t>(-1);

  // kNone, which is greater than every index, when there is no user.
  static size_t last_user(const std::vector<Message>& messages) {
    for (size_t i = messages.size(); i > 0; --i) {
      if (messages[i - 1].role == "user" || messages[i - 1].role == "developer") return i - 1;
    }
    return kNone;
  }
  bool after_last_user(size_t i) const { return last_user_ == kNone || i > last_user_; }

  static size_t num_calls(const Message& message) {
    const ordered_json* calls = get(*message.fields, "tool_calls");
    return calls != nullptr && calls->is_array() ? calls->size() : 0;
  }
  // A call's results are all there or, while the client still waits for them, none.
  Result<void> check_results() const {
    if (results_ == 0 || results_ == num_calls(messages_[call_])) return {};
    return fault(messages_[call_], fmt::format("{} tool calls need as many tool messages after them, in "
                                               "their order; got {}",
                                               num_calls(messages_[call_]), results_));
  }

  std::string_view think_tag(bool think) const { return think && thinking_ ? kThinkStart : kThinkEnd; }

  Result<std::string> render(size_t i) {
    const Message& message = messages_[i];
    if (message.role == "tool") return tool_result(message);
    FATHOM_TRY(check_results());
    call_ = i;
    results_ = 0;
    if (message.role == "system") {
      return std::string(text_of(*message.fields, "content")) + instructions(message);
    }
    if (message.role == "user") return user_turn(i, text_of(*message.fields, "content"));
    if (message.role == "developer") {
      const std::string_view content = text_of(*message.fields, "content");
      if (content.empty()) return fault(message, "a developer's message needs content");
      return user_turn(i, instructions(message) + "\n\n# The user's message is: " + std::string(content));
    }
    if (message.role == "assistant") return assistant_turn(i);
    return fault(message, fmt::format("this model has no role '{}'", message.role));
  }

  std::string user_turn(size_t i, std::string_view content) const {
    return fmt::format("{}{}{}{}", kUser, content, kAssistant, think_tag(i == last_user_));
  }

  Result<std::string> tool_result(const Message& message) {
    const Message& caller = messages_[call_];
    if (caller.role != "assistant" || results_ >= num_calls(caller)) {
      return fault(message, "a tool's message without a tool call before it");
    }
    std::string out = ++results_ == 1 ? "\n\n<function_results>" : "";
    out += fmt::format("\n<result>{}</result>", text_of(*message.fields, "content"));
    if (results_ < num_calls(caller)) return out;
    return out + "\n</function_results>\n\n" + std::string(think_tag(after_last_user(call_)));
  }

  Result<std::string> assistant_turn(size_t i) const {
    const Message& message = messages_[i];
    FATHOM_ASSIGN(const std::string calls, dsml_calls(message, "function_calls", false));
    std::string out;
    if (thinking_ && after_last_user(i)) {
      const std::string_view reasoning = text_of(*message.fields, "reasoning_content");
      if (reasoning.empty() && calls.empty()) {
        return fault(message,
                     "with thinking on, an assistant's message after the last user's needs "
                     "reasoning_content or tool_calls");
      }
      out = fmt::format("{}{}", reasoning, kThinkEnd);
    }
    return out + fmt::format("{}{}{}", text_of(*message.fields, "content"), calls, kEnd);
  }

  const bool thinking_;
  std::vector<Message> messages_;
  size_t last_user_ = kNone;
  size_t call_ = 0;     // the last message that was no tool's
  size_t results_ = 0;  // tools' messages after it
};

}  // namespace

Result<std::string> encode_v32(const Conversation& conversation, size_t max_bytes) {
  return V32Encoder(conversation).run(max_bytes);
}

}  // namespace fathom::text::encoding
