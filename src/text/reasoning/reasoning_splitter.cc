#include "text/reasoning/reasoning_splitter.h"

#include "text/answer/markers.h"

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
    const std::string_view begun = trim_left(pending_);
    if (!begun.starts_with(kThinkStart)) {
      if (is_partial(begun, kThinkStart)) return;
      break;
    }
    const size_t end = pending_.size() - begun.size() + kThinkStart.size();
    keep_tag(std::string_view(pending_).substr(0, end), pieces);
    pending_.erase(0, end);
    thinks_ = true;
  }
  state_ = thinks_ ? State::kThinking : State::kContent;
}

void ReasoningSplitter::take_thoughts(std::vector<OutputPiece>* pieces) {
  const MarkerMatch end = find_marker(pending_, ends_);
  if (!end.found()) {
    const size_t sure = pending_.size() - marker_prefix_length(pending_, ends_);
    append_piece(Kind::kReasoning, std::string_view(pending_).substr(0, sure), pieces);
    pending_.erase(0, sure);
    return;
  }
  append_piece(Kind::kReasoning, std::string_view(pending_).substr(0, end.position), pieces);
  pending_.erase(0, end.position);
  if (end.marker == 0) {
    keep_tag(kThinkEnd, pieces);
    pending_.erase(0, kThinkEnd.size());
  }
  state_ = State::kContent;
}

void ReasoningSplitter::push(std::string_view text, std::vector<OutputPiece>* pieces) {
  pending_ += text;
  if (state_ == State::kStart) take_start(pieces);
  if (state_ == State::kThinking) take_thoughts(pieces);
  if (state_ == State::kContent) {
    append_piece(Kind::kContent, pending_, pieces);
    pending_.clear();
  }
}

void ReasoningSplitter::finish(std::vector<OutputPiece>* pieces) {
  if (state_ == State::kStart) state_ = thinks_ ? State::kThinking : State::kContent;
  append_piece(state_ == State::kThinking ? Kind::kReasoning : Kind::kContent, pending_, pieces);
  pending_.clear();
}

}  // namespace fathom::text
