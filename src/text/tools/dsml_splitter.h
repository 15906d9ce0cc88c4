// Calls in DSML tags, as V3.2 and V4 write them.
#pragma once

#include <string>

#include "text/answer/held_text.h"
#include "text/tools/tool_splitter.h"

namespace fathom::text {

struct DsmlBlock {
  std::string_view open;
  std::string_view close;
};
inline constexpr DsmlBlock kDsmlFunctionCalls{"<｜DSML｜function_calls>", "</｜DSML｜function_calls>"};
inline constexpr DsmlBlock kDsmlToolCalls{"<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>"};

// Makes one JSON object of a call's parameters while they come: strings as they are written, other values
// once they are whole.
class DsmlSplitter final : public ToolSplitter {
 public:
  explicit DsmlSplitter(const DsmlBlock& block) : block_(block) {}
  void push(std::string_view text, std::vector<OutputPiece>* pieces) override;
  void finish(std::vector<OutputPiece>* pieces) override;
  Within within() const override;

 private:
  enum class State {
    kText,
    kBetween,    // in the block, outside a call
    kInvokeTag,  // <｜DSML｜invoke name="F">
    kInvoke,     // inside a call, outside a parameter
    kParameterTag,
    kString,  // a parameter's value
    kValue,   // the same, of JSON
    kRaw,     // the whole arguments as one JSON object
  };

  // One step; false when more text is needed.
  bool advance(std::vector<OutputPiece>* pieces);
  bool take_text(std::vector<OutputPiece>* pieces);
  bool take_between();
  bool take_invoke_tag(std::vector<OutputPiece>* pieces);
  bool take_invoke(std::vector<OutputPiece>* pieces);
  bool take_parameter_tag(std::vector<OutputPiece>* pieces);
  bool take_string(std::vector<OutputPiece>* pieces);
  bool take_value(std::vector<OutputPiece>* pieces);
  bool take_raw(std::vector<OutputPiece>* pieces);
  void end_call(std::vector<OutputPiece>* pieces);

  const DsmlBlock block_;
  State state_ = State::kText;
  bool after_call_ = false;      // in kText: blanks at once after calls are left out
  bool any_parameters_ = false;  // of this call
  bool may_be_raw_ = false;      // nothing has come in this call yet
  HeldText held_;
};

}  // namespace fathom::text
