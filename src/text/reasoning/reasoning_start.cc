#include "text/reasoning/reasoning_start.h"

#include "text/answer/markers.h"

namespace fathom::text {
namespace {

constexpr std::string_view kAssistant = "<｜Assistant｜>";

}  // namespace

ReasoningStart reasoning_start(ReasoningStyle style, std::string_view prompt, bool continues) {
  if (style == ReasoningStyle::kNone) return ReasoningStart::kContent;
  const std::string_view end = trim_right(prompt);
  if (end.ends_with(kThinkStart)) return ReasoningStart::kThinking;
  if (end.ends_with(kThinkEnd)) return ReasoningStart::kContent;
  if (continues) {
    const size_t turn = end.rfind(kAssistant);
    const std::string_view begun = turn == std::string_view::npos ? end : end.substr(turn);
    const size_t opened = begun.rfind(kThinkStart);
    const size_t closed = begun.rfind(kThinkEnd);
    if (opened == std::string_view::npos) return ReasoningStart::kContent;
    const bool open = closed == std::string_view::npos || closed < opened;
    return open ? ReasoningStart::kThinking : ReasoningStart::kContent;
  }
  // Not after a tool's result, where the model goes on with its answer.
  const bool forced = style == ReasoningStyle::kForced && end.ends_with(kAssistant);
  return forced ? ReasoningStart::kThinking : ReasoningStart::kDetect;
}

}  // namespace fathom::text
