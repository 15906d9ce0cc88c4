// The parts of one choice's answer: reasoning, content, tool calls.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/answer/answer_splitter.h"
#include "text/tokenizer/tokenizer.h"

namespace fathom::api {

struct ToolCall {
  std::string id;  // "call_" and 24 hex digits
  std::string name;
  std::string arguments;  // JSON as the model wrote it
};

struct Answer {
  std::string reasoning;
  std::string content;
  std::vector<ToolCall> calls;
  bool cut_call = false;         // the text ended within a call, before its arguments were whole
  int64_t reasoning_tokens = 0;  // up to and with the closing tag
};

// The tokens of tags and calls, as far as they are one token each.
struct AnswerTokens {
  int32_t think_start = -1;
  int32_t think_end = -1;
  int32_t line_break = -1;
  std::vector<int32_t> markers;      // what the parsers look for
  std::vector<int32_t> call_starts;  // of them, those that calls begin with
};
AnswerTokens find_answer_tokens(const text::Tokenizer& tokenizer);

struct AnswerOptions {
  text::AnswerFormat format;
  bool parallel_calls = true;  // false: the answer is complete after its first call
  int32_t think_start = -1;
  int32_t think_end = -1;
};

// Grows an Answer with the text. Used by one thread.
class AnswerParts {
 public:
  explicit AnswerParts(const AnswerOptions& options);

  // A generated token, for reasoning_tokens.
  void count(int32_t token, Answer* answer);
  // Takes more text, and with `last` what is held back. Appends the new pieces to `pieces` too.
  void push(std::string_view text, bool last, Answer* answer, std::vector<text::OutputPiece>* pieces);
  // Nothing that comes belongs to the answer any more.
  bool complete() const { return complete_; }

 private:
  const AnswerOptions options_;
  text::AnswerSplitter splitter_;
  bool counting_;  // the tokens are reasoning
  bool first_token_ = true;
  bool complete_ = false;
};

}  // namespace fathom::api
