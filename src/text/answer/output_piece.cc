#include "text/answer/output_piece.h"

namespace fathom::text {

void append_piece(OutputPiece::Kind kind, std::string_view text, std::vector<OutputPiece>* pieces) {
  const bool call = kind == OutputPiece::Kind::kCall;
  if (text.empty() && !call) return;
  if (!call && !pieces->empty() && pieces->back().kind == kind) {
    pieces->back().text += text;
  } else {
    pieces->push_back({kind, std::string(text)});
  }
}

}  // namespace fathom::text
