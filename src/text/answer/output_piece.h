// A model's answer in parts: what it thought, what it says, which tools it calls.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom::text {

// How the text is cut into pieces does not matter: neighbours of one kind belong together, except that every
// kCall starts a call of its own.
struct OutputPiece {
  enum class Kind {
    kReasoning,
    kContent,
    kCall,       // a call begins; the text is the tool's name
    kArguments,  // the next part of the last call's arguments, which together are JSON as the model wrote it
  };
  Kind kind = Kind::kContent;
  std::string text;
};

// Appends `text` to the last piece if it is of the same kind; an empty text appends nothing.
void append_piece(OutputPiece::Kind kind, std::string_view text, std::vector<OutputPiece>* pieces);

}  // namespace fathom::text
