// Tells tool calls from the text around them, in the formats in which DeepSeek's models write them.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "text/answer/output_piece.h"

namespace fathom::text {

enum class ToolFormat {
  kNone,
  kV3,  // <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME, then fenced JSON
  kV31,  // ...<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>JSON<｜tool▁call▁end｜>...
  kV32,  // DSML: tags with a parameter each, in <｜DSML｜function_calls>
  kV4,   // the same in <｜DSML｜tool_calls>
};

// One per answer; not thread safe. Appends kContent, kCall and kArguments pieces; together they do not depend
// on how the text is cut. Text that is no well-formed call comes as content, so that nothing is lost. The
// arguments of a call that broke off are incomplete; those of a whole call without any are "{}".
class ToolSplitter {
 public:
  virtual ~ToolSplitter() = default;
  virtual void push(std::string_view text, std::vector<OutputPiece>* pieces) = 0;
  virtual void finish(std::vector<OutputPiece>* pieces) = 0;

  // What the text so far ends in; finish changes nothing about it.
  enum class Within {
    kNothing,
    kHeader,     // a call has begun, and its name is not whole
    kArguments,  // its name is, and its end has not come
  };
  virtual Within within() const = 0;
};

// Null for kNone. kV3 and kV31 read both of their forms, since models mix them.
std::unique_ptr<ToolSplitter> make_tool_splitter(ToolFormat format);

// The markers that begin calls in a format; empty for kNone.
std::span<const std::string_view> tool_openings(ToolFormat format);

}  // namespace fathom::text
