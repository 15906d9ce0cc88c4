#include "api/answer.h"

#include <nlohmann/json.hpp>

#include "api/active_requests.h"
#include "text/tools/marked_splitter.h"

namespace fathom::api {

using Kind = text::OutputPiece::Kind;

AnswerTokens find_answer_tokens(const text::Tokenizer& tokenizer) {
  AnswerTokens tokens;
  tokens.think_start = tokenizer.token_to_id(text::kThinkStart).value_or(-1);
  tokens.think_end = tokenizer.token_to_id(text::kThinkEnd).value_or(-1);
  const std::vector<int32_t> line_break = tokenizer.encode("\n", false);
  if (line_break.size() == 1) tokens.line_break = line_break[0];
  for (std::string_view marker :
       {text::kThinkStart, text::kThinkEnd, text::kCallsBegin, text::kCallsEnd, text::kCallBegin,
        text::kCallEnd, text::kToolSeparator, std::string_view("｜DSML｜")}) {
    if (const auto id = tokenizer.token_to_id(marker)) tokens.markers.push_back(*id);
  }
  for (std::string_view marker : {text::kCallsBegin, text::kCallBegin, std::string_view("｜DSML｜")}) {
    if (const auto id = tokenizer.token_to_id(marker)) tokens.call_starts.push_back(*id);
  }
  return tokens;
}

AnswerParts::AnswerParts(const AnswerOptions& options)
    : options_(options),
      splitter_(options.format),
      counting_(options.format.start == text::ReasoningStart::kThinking) {}

void AnswerParts::count(int32_t token, Answer* answer) {
  const bool detects = options_.format.start == text::ReasoningStart::kDetect;
  if (first_token_ && detects) counting_ = token == options_.think_start;
  first_token_ = false;
  if (counting_) ++answer->reasoning_tokens;
  if (token == options_.think_end) counting_ = false;
}

void AnswerParts::push(std::string_view text, bool last, Answer* answer,
                       std::vector<text::OutputPiece>* pieces) {
  if (complete_) return;
  std::vector<text::OutputPiece> parts;
  splitter_.push(text, &parts);
  if (last) splitter_.finish(&parts);
  for (const text::OutputPiece& part : parts) {
    // A call is whole once something else comes.
    const bool ends_call = part.kind != Kind::kArguments && !answer->calls.empty();
    if (ends_call && !options_.parallel_calls) {
      complete_ = true;
      return;
    }
    switch (part.kind) {
      case Kind::kReasoning:
        answer->reasoning += part.text;
        break;
      case Kind::kContent:
        answer->content += part.text;
        break;
      case Kind::kCall:
        answer->calls.push_back({"call_" + random_id().substr(0, 24), part.text, {}});
        break;
      case Kind::kArguments:
        answer->calls.back().arguments += part.text;
        break;
    }
    pieces->push_back(part);
  }
  if (!last) return;
  using Within = text::ToolSplitter::Within;
  const Within within = splitter_.within();
  answer->cut_call = within == Within::kHeader || (within == Within::kArguments &&
                                                   !nlohmann::json::accept(answer->calls.back().arguments));
}

}  // namespace fathom::api
