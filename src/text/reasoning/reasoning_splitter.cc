#include "text/reasoning/reasoning_splitter.h"

namespace fathom::text {

using Kind = OutputPiece::Kind;

ReasoningSplitter::ReasoningSplitter(ReasoningStart start, std::vector<std::string_view> breaks,
                                     bool keep_tags)
    : ends_(std::move(breaks)),
      keep_tags_(keep_tags),
      state_(start == ReasoningStart::kContent ? State::kContent : State::kStart),
      thinks_(start == ReasoningStart::kThinking) {
  ends_.insert(ends_.begin(), kThinkEnd);
}

void ReasoningSplitter::keep_tag(std::string_view tag, std::vector<OutputPiece>* pieces) const {
  if (keep_tags_) append_piece(Kind::kReasoning, tag, pieces);
}

// Decides what the text is once it is clear whether a tag comes; several in a row count as one.
void ReasoningSplitter::take_start(std::vector<OutputPiece>* pieces) {
  for (;;) {
    const size_t blanks = held_.leading_blanks();
    const std::string_view begun = held_.view().substr(blanks);
    if (!begun.starts_with(kThinkStart)) {
      if (is_partial(begun, kThinkStart)) return;
      break;
    }
    keep_tag(held_.take(blanks + kThinkStart.size()), pieces);
    thinks_ = true;
  }
  state_ = thinks_ ? State::kThinking : State::kContent;
}

void ReasoningSplitter::take_thoughts(std::vector<OutputPiece>* pieces) {
  const MarkerMatch end = held_.find(ends_);
  append_piece(Kind::kReasoning, held_.take(end.found() ? end.position : held_.sure_end()), pieces);
  if (!end.found()) return;
  if (end.marker == 0) keep_tag(held_.take(kThinkEnd.size()), pieces);
  state_ = State::kContent;
}

void ReasoningSplitter::push(std::string_view text, std::vector<OutputPiece>* pieces) {
  held_.append(text);
  if (state_ == State::kStart) take_start(pieces);
  if (state_ == State::kThinking) take_thoughts(pieces);
  if (state_ == State::kContent) {
    append_piece(Kind::kContent, held_.view(), pieces);
    held_.clear();
  }
}

void ReasoningSplitter::finish(std::vector<OutputPiece>* pieces) {
  if (state_ == State::kStart) state_ = thinks_ ? State::kThinking : State::kContent;
  append_piece(state_ == State::kThinking ? Kind::kReasoning : Kind::kContent, held_.view(), pieces);
  held_.clear();
}

}  // namespace fathom::text
