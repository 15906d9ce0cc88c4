// V4: tool results are parts of user turns, and a conversation with tools keeps all its thoughts.
#include <algorithm>
#include <map>

#include "text/encoding/conversation.h"
#include "text/reasoning/reasoning_splitter.h"

namespace fathom::text::encoding {
namespace {

using Message = Conversation::Message;

// The text that tells the model of its tools, as it was trained on it.
constexpr std::string_view kToolsBegin =
    R"(## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "<｜DSML｜tool_calls>" block like the following:

<｜DSML｜tool_calls>
<｜DSML｜invoke name="$TOOL_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$TOOL_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside <think>...</think> BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

)";
constexpr std::string_view kToolsEnd =
    "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n";

constexpr std::string_view kReminder = "<｜latest_reminder｜>";
constexpr std::string_view kTasks[] = {"action", "query", "authority", "domain", "title", "read_url"};

struct Turn {
  struct Part {
    std::string text;
    std::optional<std::string> tool_call_id;  // of a tool's result
  };
  Message message;          // the first of those that became this turn
  std::string_view role;    // a tool's message is a user's
  std::vector<Part> parts;  // of a user
  std::string task;
};

std::string instructions(const Message& message) {
  std::string out;
  if (message.tools != nullptr) {
    out += "\n\n" + std::string(kToolsBegin) + tool_schemas(*message.tools) + std::string(kToolsEnd);
  }
  if (message.response_format != nullptr) out += "\n\n" + response_format_text(*message.response_format);
  return out;
}

// One turn for each run of user's and tools' messages. `task` is that of message `task_at`.
std::vector<Turn> merge_turns(const std::vector<Message>& messages, const std::string& task, size_t task_at) {
  std::vector<Turn> turns;
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    const std::string own_task = i == task_at ? task : std::string(text_of(*message.fields, "task"));
    const bool tool = message.role == "tool";
    if (!tool && message.role != "user") {
      turns.push_back({message, message.role, {}, own_task});
      continue;
    }
    Turn::Part part;
    const std::string_view content = text_of(*message.fields, "content");
    part.text = tool ? fmt::format("<tool_result>{}</tool_result>", content) : std::string(content);
    if (tool) part.tool_call_id = std::string(text_of(*message.fields, "tool_call_id"));
    // A task ends a user's turn; results still join it.
    const bool joins = !turns.empty() && turns.back().role == "user" && (tool || turns.back().task.empty());
    if (!joins) turns.push_back({message, "user", {}, {}});
    if (!tool) turns.back().task = own_task;
    turns.back().parts.push_back(std::move(part));
  }
  return turns;
}

// The results of a turn in the order of the calls.
void sort_results(const std::map<std::string, size_t, std::less<>>& order, std::vector<Turn::Part>* parts) {
  std::vector<Turn::Part> results;
  for (const Turn::Part& part : *parts) {
    if (part.tool_call_id) results.push_back(part);
  }
  const auto place = [&](const Turn::Part& part) {
    const auto it = order.find(*part.tool_call_id);
    return it == order.end() ? 0 : it->second;
  };
  std::stable_sort(results.begin(), results.end(),
                   [&](const Turn::Part& a, const Turn::Part& b) { return place(a) < place(b); });
  size_t next = 0;
  for (Turn::Part& part : *parts) {
    if (part.tool_call_id) part = results[next++];
  }
}

void sort_all_results(std::vector<Turn>* turns) {
  std::map<std::string, size_t, std::less<>> order;
  for (Turn& turn : *turns) {
    if (turn.role == "user" && !order.empty()) sort_results(order, &turn.parts);
    const ordered_json* calls = get(*turn.message.fields, "tool_calls");
    if (turn.role != "assistant" || calls == nullptr || !calls->is_array() || calls->empty()) continue;
    order.clear();
    for (size_t i = 0; i < calls->size(); ++i) {
      const std::string_view id = text_of((*calls)[i], "id");
      if (!id.empty()) order[std::string(id)] = i;
    }
  }
}

bool is_user(const Turn& turn) {
  return turn.role == "user" || turn.role == "developer";
}

class V4Encoder {
 public:
  V4Encoder(const Conversation& conversation, const V4Options& options)
      : thinking_(conversation.thinking), effort_text_(options.effort_text) {
    const bool tools = std::any_of(conversation.messages.begin(), conversation.messages.end(),
                                   [](const Message& message) { return message.tools != nullptr; });
    drop_thinking_ = conversation.drop_thinking && !tools;
    size_t task_at = kNone;
    for (size_t i = 0; i < conversation.messages.size() && !options.task.empty(); ++i) {
      const std::string_view role = conversation.messages[i].role;
      if (role == "user" || role == "developer") task_at = i;
    }
    task_refused_ = !options.task.empty() && task_at == kNone;
    turns_ = merge_turns(conversation.messages, options.task, task_at);
    sort_all_results(&turns_);
    find_last_user();
    if (!thinking_ || !drop_thinking_ || last_user_ == kNone) return;
    // Developers' words hold for one turn.
    std::vector<Turn> kept;
    for (size_t i = 0; i < turns_.size(); ++i) {
      if (i >= last_user_ || turns_[i].role != "developer") kept.push_back(std::move(turns_[i]));
    }
    turns_ = std::move(kept);
    find_last_user();
  }

  Result<std::string> run(size_t max_bytes) {
    if (task_refused_) return fault(turns_[0].message, "a task needs a user's message");
    std::string prompt(kBegin);
    if (thinking_) prompt += effort_text_;
    for (size_t i = 0; i < turns_.size(); ++i) {
      FATHOM_ASSIGN(const std::string text, render(i));
      FATHOM_ASSIGN(const std::string next, transition(i));
      prompt += text + next;
      if (prompt.size() > max_bytes) return fault(turns_[i].message, "the prompt is too long");
    }
    return prompt;
  }

 private:
  static constexpr size_t kNone = static_cast<size_t>(-1);

  void find_last_user() {
    last_user_ = kNone;
    for (size_t i = 0; i < turns_.size(); ++i) {
      if (is_user(turns_[i])) last_user_ = i;
    }
  }

  Result<std::string> render(size_t i) const {
    const Turn& turn = turns_[i];
    const std::string content(text_of(*turn.message.fields, "content"));
    if (turn.role == "system") return content + instructions(turn.message);
    if (turn.role == "developer") {
      if (content.empty()) return fault(turn.message, "a developer's message needs content");
      return std::string(kUser) + content + instructions(turn.message);
    }
    if (turn.role == "user") {
      std::string out(kUser);
      for (size_t k = 0; k < turn.parts.size(); ++k) out += (k > 0 ? "\n\n" : "") + turn.parts[k].text;
      return out;
    }
    if (turn.role == "latest_reminder") return std::string(kReminder) + content;
    if (turn.role == "assistant") return assistant_turn(i, content);
    return fault(turn.message, fmt::format("this model has no role '{}'", turn.role));
  }

  Result<std::string> assistant_turn(size_t i, const std::string& content) const {
    const Message& message = turns_[i].message;
    FATHOM_ASSIGN(const std::string calls, dsml_calls(message, "tool_calls", true));
    std::string out;
    const bool did_task = i > 0 && !turns_[i - 1].task.empty();
    const bool current = last_user_ == kNone || i > last_user_;
    if (thinking_ && !did_task && (!drop_thinking_ || current)) {
      out = fmt::format("{}{}", text_of(*message.fields, "reasoning_content"), kThinkEnd);
    }
    return out + content + calls + std::string(kEnd);
  }

  // What stands between a turn and the model's next one.
  Result<std::string> transition(size_t i) const {
    const Turn& turn = turns_[i];
    const bool model_next = i + 1 == turns_.size() || turns_[i + 1].role == "assistant" ||
                            turns_[i + 1].role == "latest_reminder";
    if (!model_next) return std::string();
    if (!turn.task.empty()) return task_text(turn);
    if (!is_user(turn)) return std::string();
    const bool thinks = thinking_ && (!drop_thinking_ || i == last_user_);
    return fmt::format("{}{}", kAssistant, thinks ? kThinkStart : kThinkEnd);
  }

  Result<std::string> task_text(const Turn& turn) const {
    if (std::find(std::begin(kTasks), std::end(kTasks), turn.task) == std::end(kTasks)) {
      return fault(turn.message, fmt::format("task: got '{}', expected action, query, authority, domain, "
                                             "title or read_url",
                                             turn.task));
    }
    const std::string token = fmt::format("<｜{}｜>", turn.task);
    if (turn.task != "action") return token;
    return fmt::format("{}{}{}", kAssistant, thinking_ ? kThinkStart : kThinkEnd, token);
  }

  const bool thinking_;
  const std::string effort_text_;
  bool drop_thinking_ = true;
  bool task_refused_ = false;
  std::vector<Turn> turns_;
  size_t last_user_ = kNone;
};

}  // namespace

Result<std::string> encode_v4(const Conversation& conversation, const V4Options& options, size_t max_bytes) {
  return V4Encoder(conversation, options).run(max_bytes);
}

}  // namespace fathom::text::encoding
