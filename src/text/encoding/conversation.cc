#include "text/encoding/conversation.h"

#include "text/encoding/python_json.h"

namespace fathom::text::encoding {
namespace {

bool is_true(const ordered_json& variables, const char* key) {
  const ordered_json* value = get(variables, key);
  return value != nullptr && *value == true;
}

const ordered_json* tool_list(const ordered_json& value, std::string_view key) {
  const ordered_json* tools = get(value, key);
  return tools != nullptr && tools->is_array() && !tools->empty() ? tools : nullptr;
}

std::string dsml_call(std::string_view name, const std::vector<JsonField>& arguments) {
  std::string out = fmt::format("<｜DSML｜invoke name=\"{}\">\n", name);
  for (size_t i = 0; i < arguments.size(); ++i) {
    const JsonField& field = arguments[i];
    if (i > 0) out += '\n';
    out += fmt::format("<｜DSML｜parameter name=\"{}\" string=\"{}\">{}</｜DSML｜parameter>", field.key,
                       field.is_string ? "true" : "false", field.text);
  }
  return out + "\n</｜DSML｜invoke>";
}

}  // namespace

const ordered_json* get(const ordered_json& value, std::string_view key) {
  if (!value.is_object()) return nullptr;
  const auto it = value.find(key);
  return it == value.end() || it->is_null() ? nullptr : &*it;
}

std::string_view text_of(const ordered_json& message, std::string_view key) {
  const ordered_json* text = get(message, key);
  return text != nullptr && text->is_string() ? text->get_ref<const std::string&>() : std::string_view();
}

Conversation::Conversation(const ordered_json& variables) {
  const ordered_json* switched = get(variables, "thinking");
  thinking = switched != nullptr ? *switched == true : is_true(variables, "enable_thinking");
  const ordered_json* drop = get(variables, "drop_thinking");
  drop_thinking = drop == nullptr || *drop != false;
  if (const ordered_json* given = get(variables, "messages")) {
    for (const ordered_json& fields : *given) {
      messages.push_back({text_of(fields, "role"), &fields, tool_list(fields, "tools"),
                          get(fields, "response_format"), messages.size()});
    }
  }
  // The request's tools and schema stand in a system message, an empty one if need be.
  if (messages.empty() || messages[0].role != "system") {
    added_system_ = ordered_json::object();
    messages.insert(messages.begin(), Message{"system", &added_system_, nullptr, nullptr, 0});
  }
  if (const ordered_json* tools = tool_list(variables, "tools")) messages[0].tools = tools;
  if (messages[0].response_format == nullptr) messages[0].response_format = get(variables, "response_format");
}

Error fault(const Conversation::Message& message, std::string_view what) {
  return error(ErrorCode::kInvalidArgument, "messages[{}]: {}", message.original, what);
}

std::string tool_schemas(const ordered_json& tools) {
  std::string out;
  for (const ordered_json& tool : tools) {
    if (!out.empty()) out += '\n';
    const ordered_json* function = get(tool, "function");
    out += python_json(function != nullptr ? *function : tool);
  }
  return out;
}

std::string response_format_text(const ordered_json& schema) {
  return "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n" +
         python_json(schema);
}

Result<std::string> dsml_calls(const Conversation::Message& message, std::string_view block, bool lenient) {
  const ordered_json* calls = tool_list(*message.fields, "tool_calls");
  if (calls == nullptr) return std::string();
  std::string out = fmt::format("\n\n<｜DSML｜{}>\n", block);
  for (const ordered_json& call : *calls) {
    const ordered_json* function = get(call, "function");
    const ordered_json* given = function != nullptr ? get(*function, "arguments") : nullptr;
    if (given == nullptr) return fault(message, "a tool call needs function.name and function.arguments");
    const std::string json = given->is_string() ? given->get<std::string>() : given->dump();
    auto arguments = read_json_fields(json);
    if (!arguments && !lenient) {
      return fault(message, "function.arguments of a tool call must be a JSON object");
    }
    if (!arguments) arguments = {{"arguments", true, json}};
    out += dsml_call(text_of(*function, "name"), *arguments) + "\n";
  }
  return out + fmt::format("</｜DSML｜{}>", block);
}

}  // namespace fathom::text::encoding
