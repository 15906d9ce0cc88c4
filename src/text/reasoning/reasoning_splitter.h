// Tells a model's thoughts from its answer: "<think>thoughts</think>answer", where the prompt may have
// written the first tag already.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/answer/held_text.h"
#include "text/answer/output_piece.h"

namespace fathom::text {

inline constexpr std::string_view kThinkStart = "<think>";
inline constexpr std::string_view kThinkEnd = "</think>";

// What the text begins with.
enum class ReasoningStart {
  kThinking,  // thoughts; a "<think>" at the begin, blanks before it included, is left out
  kDetect,    // thoughts if it begins with "<think>", else the answer
  kContent,   // the answer
};

// One per answer; not thread safe. The pieces together do not depend on how the text is cut.
class ReasoningSplitter {
 public:
  // `breaks`: markers that end the thoughts too, and belong to what follows: a tool call is never a thought.
  // With `keep_tags` the tags are part of the reasoning pieces, so that all pieces together are the text.
  ReasoningSplitter(ReasoningStart start, std::vector<std::string_view> breaks, bool keep_tags);

  // Appends kReasoning and kContent pieces. Holds back what may be the begin of a tag.
  void push(std::string_view text, std::vector<OutputPiece>* pieces);
  // The rest, when no more text comes.
  void finish(std::vector<OutputPiece>* pieces);

  bool thinking() const { return state_ == State::kThinking; }

 private:
  enum class State { kStart, kThinking, kContent };

  void take_start(std::vector<OutputPiece>* pieces);
  void take_thoughts(std::vector<OutputPiece>* pieces);
  void keep_tag(std::string_view tag, std::vector<OutputPiece>* pieces) const;

  std::vector<std::string_view> ends_;  // kThinkEnd, then the breaks
  const bool keep_tags_;
  State state_;
  bool thinks_;  // in kStart: what the text is if no tag comes
  HeldText held_;
};

}  // namespace fathom::text
