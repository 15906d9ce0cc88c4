// Calls between special tokens, as V3, R1 and V3.1 write them.
#pragma once

#include <string>

#include "text/answer/held_text.h"
#include "text/tools/tool_splitter.h"

namespace fathom::text {

inline constexpr std::string_view kCallsBegin = "<｜tool▁calls▁begin｜>";
inline constexpr std::string_view kCallsEnd = "<｜tool▁calls▁end｜>";
inline constexpr std::string_view kCallBegin = "<｜tool▁call▁begin｜>";
inline constexpr std::string_view kCallEnd = "<｜tool▁call▁end｜>";
inline constexpr std::string_view kToolSeparator = "<｜tool▁sep｜>";
inline constexpr std::string_view kMarkedOpenings[] = {kCallsBegin, kCallBegin};

class MarkedSplitter final : public ToolSplitter {
 public:
  void push(std::string_view text, std::vector<OutputPiece>* pieces) override;
  void finish(std::vector<OutputPiece>* pieces) override;
  Within within() const override;

 private:
  enum class State {
    kText,
    kBetween,    // in a block of calls, outside a call
    kHeader,     // before the separator: the kind "function" (V3), or the name (V3.1)
    kSeparated,  // after it: a name (V3), or the arguments (V3.1)
    kName,
    kBefore,  // the arguments or their fence
    kFence,   // "```json"
    kArguments,
  };

  // One step; false when more text is needed.
  bool advance(std::vector<OutputPiece>* pieces);
  bool take_text(std::vector<OutputPiece>* pieces);
  bool take_between();
  bool take_header(std::vector<OutputPiece>* pieces);
  bool take_separated(std::vector<OutputPiece>* pieces);
  bool take_name(std::vector<OutputPiece>* pieces);
  bool take_before();
  bool take_fence();
  bool take_arguments(std::vector<OutputPiece>* pieces);
  void begin_call(std::string_view name, std::vector<OutputPiece>* pieces);

  State state_ = State::kText;
  bool after_call_ = false;  // in kText: blanks at once after calls are left out
  bool any_arguments_ = false;
  std::string header_;
  HeldText held_;
};

}  // namespace fathom::text
