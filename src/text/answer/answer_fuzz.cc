// Any text in any format: the pieces do not depend on the cuts, and no text of the content is lost when there
// are no tools.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "text/answer/answer_testing.h"

// The first bytes choose the format and the distance of the cuts. A byte from 0x80 on is a fragment of its
// own, so that the fuzzer need not spell the markers out.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fathom::text;
  if (size < 3) return 0;
  AnswerFormat format;
  format.start = static_cast<ReasoningStart>(data[0] % 3);
  format.separate_reasoning = (data[0] & 0x40) == 0;
  format.stream_reasoning = (data[0] & 0x80) == 0;
  format.tools = static_cast<ToolFormat>(data[1] % 5);
  const auto& fragments = answer_fragments();
  std::string text;
  for (size_t i = 3; i < size; ++i) {
    if (data[i] < 0x80) {
      text += static_cast<char>(data[i]);
    } else {
      text += fragments[(data[i] - 0x80U) % fragments.size()];
    }
  }
  std::vector<size_t> cuts;
  uint32_t state = data[2];
  for (size_t i = 1; i < text.size(); ++i) {
    state = state * 1664525U + 1013904223U;
    if ((state >> 24) % (1 + data[2] % 7) == 0) cuts.push_back(i);
  }
  const std::string whole = show(split_answer(format, text, {}));
  const std::string cut = show(split_answer(format, text, cuts));
  FATHOM_CHECK(whole == cut, "cuts change the answer:\n{}--- became ---\n{}", whole, cut);
  if (format.tools == ToolFormat::kNone && !format.separate_reasoning) {
    std::string kept;
    for (const OutputPiece& piece : split_answer(format, text, cuts)) kept += piece.text;
    FATHOM_CHECK(kept == text, "text got lost");
  }
  return 0;
}
