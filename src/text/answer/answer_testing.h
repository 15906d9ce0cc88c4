// For the tests and the fuzzer of answer, reasoning and tools: answers cut in every way.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/answer/answer_splitter.h"

namespace fathom::text {

// The pieces of `text` cut at the given places (ascending), neighbours of one kind joined.
inline std::vector<OutputPiece> split_answer(const AnswerFormat& format, std::string_view text,
                                             const std::vector<size_t>& cuts) {
  AnswerSplitter splitter(format);
  std::vector<OutputPiece> joined;
  const auto take = [&](const std::vector<OutputPiece>& pieces) {
    for (const OutputPiece& piece : pieces) append_piece(piece.kind, piece.text, &joined);
  };
  size_t from = 0;
  std::vector<OutputPiece> pieces;
  for (size_t cut : cuts) {
    pieces.clear();
    splitter.push(text.substr(from, cut - from), &pieces);
    take(pieces);
    from = cut;
  }
  pieces.clear();
  splitter.push(text.substr(from), &pieces);
  splitter.finish(&pieces);
  take(pieces);
  return joined;
}

// One line a piece, for comparison and messages.
inline std::string show(const std::vector<OutputPiece>& pieces) {
  static constexpr std::string_view kNames[] = {"reasoning", "content", "call", "arguments"};
  std::string text;
  for (const OutputPiece& piece : pieces) {
    text += kNames[static_cast<size_t>(piece.kind)];
    text += ": " + piece.text + "\n";
  }
  return text;
}

// What random answers are made of: every marker, and what stands between them.
inline const std::vector<std::string>& answer_fragments() {
  static const std::vector<std::string> fragments = {"<think>",
                                                     "</think>",
                                                     "<",
                                                     "</",
                                                     "<｜tool▁calls▁begin｜>",
                                                     "<｜tool▁calls▁end｜>",
                                                     "<｜tool▁call▁begin｜>",
                                                     "<｜tool▁call▁end｜>",
                                                     "<｜tool▁sep｜>",
                                                     "function",
                                                     "get_time",
                                                     "\n```json\n",
                                                     "\n```",
                                                     "```",
                                                     "`",
                                                     "{\"city\": \"Rome\"}",
                                                     "{",
                                                     "}",
                                                     "[1, 2]",
                                                     "\n",
                                                     " ",
                                                     "\n\n",
                                                     "é",
                                                     "天气",
                                                     "\"",
                                                     "\\",
                                                     "<｜DSML｜function_calls>",
                                                     "</｜DSML｜function_calls>",
                                                     "<｜DSML｜tool_calls>",
                                                     "</｜DSML｜tool_calls>",
                                                     "<｜DSML｜invoke name=\"get_time\">",
                                                     "<｜DSML｜invoke name=\"f\"/>",
                                                     "</｜DSML｜invoke>",
                                                     "<｜DSML｜parameter name=\"city\" string=\"true\">",
                                                     "<｜DSML｜parameter name=\"n\" string=\"false\">",
                                                     "</｜DSML｜parameter>",
                                                     "<｜DSML｜",
                                                     "<｜tool▁",
                                                     "｜>",
                                                     ">",
                                                     "words ",
                                                     "12",
                                                     "\x01",
                                                     "/"};
  return fragments;
}

}  // namespace fathom::text
