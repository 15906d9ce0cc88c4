#include "text/answer/answer_parsers.h"

#include <nlohmann/json.hpp>

#include "text/answer/markers.h"
#include "text/template/chat_template.h"
#include "text/tools/dsml_splitter.h"
#include "text/tools/marked_splitter.h"

namespace fathom::text {
namespace {

struct ReasoningName {
  std::string_view name;
  ReasoningStyle style;
};
constexpr ReasoningName kReasoningNames[] = {{"none", ReasoningStyle::kNone},
                                             {"deepseek-r1", ReasoningStyle::kForced},
                                             {"deepseek-v3", ReasoningStyle::kSwitched},
                                             {"deepseek-v31", ReasoningStyle::kSwitched},
                                             {"deepseek-v4", ReasoningStyle::kSwitched}};

struct ToolName {
  std::string_view name;
  ToolFormat format;
};
constexpr ToolName kToolNames[] = {{"none", ToolFormat::kNone},
                                   {"deepseekv3", ToolFormat::kV3},
                                   {"deepseekv31", ToolFormat::kV31},
                                   {"deepseekv32", ToolFormat::kV32},
                                   {"deepseekv4", ToolFormat::kV4}};

template <class Names>
Error unknown_name(std::string_view flag, std::string_view got, const Names& names) {
  std::string known = "auto";
  for (const auto& entry : names) known += fmt::format(", {}", entry.name);
  return error(ErrorCode::kInvalidArgument, "{}: got '{}', expected one of {}", flag, got, known);
}

bool opens_thinking(const ChatTemplate& chat_template, bool thinking) {
  const nlohmann::ordered_json variables = {{"messages", {{{"role", "user"}, {"content", "Hello"}}}},
                                            {"add_generation_prompt", true},
                                            {"bos_token", ""},
                                            {"eos_token", ""},
                                            {"tools", nullptr},
                                            {"thinking", thinking},
                                            {"enable_thinking", thinking}};
  const Result<std::string> prompt = chat_template.render(variables);
  return prompt.ok() && trim_right(*prompt).ends_with(kThinkStart);
}

// By what the template writes with thinking off and on.
std::string_view detect_reasoning(const ChatTemplate* chat_template, std::string_view architecture) {
  if (chat_template == nullptr) {
    if (architecture.starts_with("DeepseekV4")) return "deepseek-v4";
    return architecture.starts_with("DeepseekV32") ? "deepseek-v3" : "none";
  }
  if (const auto encoding = chat_template->encoding()) {
    return encoding == PromptEncoding::kV32 ? "deepseek-v3" : "deepseek-v4";
  }
  if (opens_thinking(*chat_template, false)) return "deepseek-r1";
  if (opens_thinking(*chat_template, true)) return "deepseek-v3";
  // A template that leaves old thoughts out, but leaves it to the model to open new ones.
  return chat_template->source().find(kThinkEnd) != std::string::npos ? "deepseek-r1" : "none";
}

std::string_view detect_tools(const ChatTemplate* chat_template, std::string_view architecture) {
  if (chat_template == nullptr) {
    if (architecture.starts_with("DeepseekV4")) return "deepseekv4";
    return architecture.starts_with("DeepseekV32") ? "deepseekv32" : "none";
  }
  if (const auto encoding = chat_template->encoding()) {
    return encoding == PromptEncoding::kV32 ? "deepseekv32" : "deepseekv4";
  }
  const std::string& source = chat_template->source();
  const auto holds = [&](std::string_view text) { return source.find(text) != std::string::npos; };
  if (holds(kDsmlToolCalls.open)) return "deepseekv4";
  if (holds(kDsmlFunctionCalls.open)) return "deepseekv32";
  if (!holds(kCallBegin)) return "none";
  // V3.1 writes neither the kind nor the fence.
  const bool fenced = holds("function<｜tool▁sep｜>") || holds("```json");
  return fenced ? "deepseekv3" : "deepseekv31";
}

}  // namespace

Result<AnswerParsers> choose_parsers(std::string_view reasoning, std::string_view tools,
                                     const ChatTemplate* chat_template, std::string_view architecture) {
  if (reasoning == "auto") reasoning = detect_reasoning(chat_template, architecture);
  if (tools == "auto") tools = detect_tools(chat_template, architecture);
  AnswerParsers parsers;
  bool known = false;
  for (const ReasoningName& entry : kReasoningNames) {
    if (entry.name != reasoning) continue;
    known = true;
    parsers.reasoning = entry.style;
    if (entry.style != ReasoningStyle::kNone) parsers.reasoning_name = reasoning;
  }
  if (!known) return unknown_name("--reasoning-parser", reasoning, kReasoningNames);
  known = false;
  for (const ToolName& entry : kToolNames) {
    if (entry.name != tools) continue;
    known = true;
    parsers.tools = entry.format;
    if (entry.format != ToolFormat::kNone) parsers.tools_name = tools;
  }
  if (!known) return unknown_name("--tool-call-parser", tools, kToolNames);
  return parsers;
}

}  // namespace fathom::text
