// The whole of a model's answer: reasoning, then content and tool calls.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "text/answer/output_piece.h"
#include "text/reasoning/reasoning_splitter.h"
#include "text/tools/tool_splitter.h"

namespace fathom::text {

struct AnswerFormat {
  ReasoningStart start = ReasoningStart::kContent;
  bool separate_reasoning = true;  // false: the thoughts are content, tags included
  bool stream_reasoning = true;    // false: the thoughts come as one piece, once they are whole
  ToolFormat tools = ToolFormat::kNone;
};

// One per answer; not thread safe. Together the pieces do not depend on how the text is cut.
class AnswerSplitter {
 public:
  explicit AnswerSplitter(const AnswerFormat& format);

  void push(std::string_view text, std::vector<OutputPiece>* pieces);
  void finish(std::vector<OutputPiece>* pieces);
  // What the text so far ends in; finish changes nothing about it.
  ToolSplitter::Within within() const;

 private:
  void distribute(const std::vector<OutputPiece>& parts, std::vector<OutputPiece>* pieces);
  void release_thoughts(std::vector<OutputPiece>* pieces);

  const AnswerFormat format_;
  ReasoningSplitter reasoning_;
  std::unique_ptr<ToolSplitter> tools_;  // null: no tools
  std::string thoughts_;                 // held, without stream_reasoning
};

}  // namespace fathom::text
