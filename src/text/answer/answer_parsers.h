// Which parsers a model's answers need: by name, or found out from its template and architecture.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "text/reasoning/reasoning_start.h"
#include "text/tools/tool_splitter.h"

namespace fathom::text {

class ChatTemplate;

struct AnswerParsers {
  ReasoningStyle reasoning = ReasoningStyle::kNone;
  std::string reasoning_name;  // e.g. "deepseek-v3"; empty for none
  ToolFormat tools = ToolFormat::kNone;
  std::string tools_name;  // e.g. "deepseekv3"; empty for none
};

// The names are those of --reasoning-parser and --tool-call-parser: "auto", "none" or a parser's.
// `chat_template` may be null; `architecture` is config.json's. kInvalidArgument lists the known names.
Result<AnswerParsers> choose_parsers(std::string_view reasoning, std::string_view tools,
                                     const ChatTemplate* chat_template, std::string_view architecture);

}  // namespace fathom::text
