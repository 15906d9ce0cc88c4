#include "text/answer/answer_splitter.h"

#include <utility>

namespace fathom::text {

using Kind = OutputPiece::Kind;

AnswerSplitter::AnswerSplitter(const AnswerFormat& format)
    : format_(format),
      reasoning_(format.start, {tool_openings(format.tools).begin(), tool_openings(format.tools).end()},
                 !format.separate_reasoning),
      tools_(make_tool_splitter(format.tools)) {}

void AnswerSplitter::release_thoughts(std::vector<OutputPiece>* pieces) {
  append_piece(Kind::kReasoning, std::exchange(thoughts_, {}), pieces);
}

void AnswerSplitter::distribute(const std::vector<OutputPiece>& parts, std::vector<OutputPiece>* pieces) {
  for (const OutputPiece& part : parts) {
    if (part.kind == Kind::kReasoning && !format_.separate_reasoning) {
      append_piece(Kind::kContent, part.text, pieces);
    } else if (part.kind == Kind::kReasoning && !format_.stream_reasoning) {
      thoughts_ += part.text;
    } else if (part.kind == Kind::kReasoning) {
      append_piece(Kind::kReasoning, part.text, pieces);
    } else {
      release_thoughts(pieces);
      if (tools_ != nullptr) {
        tools_->push(part.text, pieces);
      } else {
        append_piece(Kind::kContent, part.text, pieces);
      }
    }
  }
  if (!reasoning_.thinking()) release_thoughts(pieces);
}

void AnswerSplitter::push(std::string_view text, std::vector<OutputPiece>* pieces) {
  std::vector<OutputPiece> parts;
  reasoning_.push(text, &parts);
  distribute(parts, pieces);
}

void AnswerSplitter::finish(std::vector<OutputPiece>* pieces) {
  std::vector<OutputPiece> parts;
  reasoning_.finish(&parts);
  distribute(parts, pieces);
  release_thoughts(pieces);
  if (tools_ != nullptr) tools_->finish(pieces);
}

ToolSplitter::Within AnswerSplitter::within() const {
  return tools_ == nullptr ? ToolSplitter::Within::kNothing : tools_->within();
}

}  // namespace fathom::text
