#include "text/tools/marked_splitter.h"

#include "text/answer/markers.h"

namespace fathom::text {
namespace {

using Kind = OutputPiece::Kind;

constexpr std::string_view kInText[] = {kCallsBegin, kCallBegin, kCallsEnd};
constexpr std::string_view kInHeader[] = {kToolSeparator, kCallEnd, kCallsEnd, kCallBegin, kCallsBegin};
constexpr std::string_view kInCall[] = {kCallEnd, kCallsEnd, kCallBegin, kCallsBegin};
constexpr std::string_view kAfterName[] = {"\n", kCallEnd, kCallsEnd, kCallBegin, kCallsBegin};
constexpr std::string_view kAfterFence[] = {"\n", "{", kCallEnd, kCallsEnd, kCallBegin, kCallsBegin};
constexpr std::string_view kFenceMark = "```";
constexpr std::string_view kFunction = "function";

// Arguments without the fence that closes them.
std::string_view without_fence(std::string_view arguments) {
  arguments = trim_right(arguments);
  if (arguments.ends_with(kFenceMark)) {
    arguments.remove_suffix(kFenceMark.size());
    arguments = trim_right(arguments);
  }
  return arguments;
}

}  // namespace

void MarkedSplitter::begin_call(std::string_view name, std::vector<OutputPiece>* pieces) {
  append_piece(Kind::kCall, trim_left(trim_right(name)), pieces);
  any_arguments_ = false;
}

bool MarkedSplitter::take_text(std::vector<OutputPiece>* pieces) {
  if (after_call_ && !held_.skip_blanks()) return false;
  const MarkerMatch marker = held_.find(kInText);
  const size_t end = marker.found() ? marker.position : held_.sure_end();
  const size_t sure = held_.without_waiting(end, is_blank);  // blanks before a call are not content
  append_piece(Kind::kContent, held_.take(sure), pieces);
  if (sure != 0) after_call_ = false;
  if (!marker.found()) return false;
  held_.take(end - sure + kInText[marker.marker].size());
  if (kInText[marker.marker] == kCallsBegin) state_ = State::kBetween;
  if (kInText[marker.marker] == kCallBegin) state_ = State::kHeader;
  return true;
}

bool MarkedSplitter::take_between() {
  if (!held_.skip_blanks()) return false;
  if (held_.starts_with(kCallBegin)) {
    held_.take(kCallBegin.size());
    state_ = State::kHeader;
    return true;
  }
  if (is_partial(held_.view(), kCallBegin) || is_partial(held_.view(), kCallsEnd)) return false;
  // The end of the block, or text that does not belong here.
  if (held_.starts_with(kCallsEnd)) held_.take(kCallsEnd.size());
  state_ = State::kText;
  after_call_ = true;
  return true;
}

bool MarkedSplitter::take_header(std::vector<OutputPiece>* pieces) {
  const MarkerMatch marker = held_.find(kInHeader);
  if (!marker.found()) return false;
  header_ = held_.take(marker.position);
  if (kInHeader[marker.marker] == kToolSeparator) {
    held_.take(kToolSeparator.size());
    state_ = State::kSeparated;
    return true;
  }
  // No call after all.
  append_piece(Kind::kContent, kCallBegin, pieces);
  append_piece(Kind::kContent, header_, pieces);
  if (kInHeader[marker.marker] == kCallEnd) held_.take(kCallEnd.size());
  state_ = State::kBetween;
  return true;
}

bool MarkedSplitter::take_separated(std::vector<OutputPiece>* pieces) {
  if (!held_.skip_blanks()) return false;
  const std::string_view text = held_.view();
  bool ends = false;
  for (std::string_view end : kInCall) {
    if (is_partial(text, end)) return false;
    ends = ends || text.starts_with(end);
  }
  const bool named = trim_right(trim_left(header_)) != kFunction;
  if (named || text[0] == '{' || text[0] == '`' || ends) {
    begin_call(header_, pieces);
    state_ = State::kBefore;
  } else {
    state_ = State::kName;
  }
  return true;
}

bool MarkedSplitter::take_name(std::vector<OutputPiece>* pieces) {
  const MarkerMatch end = held_.find(kAfterName);
  if (!end.found()) return false;
  begin_call(held_.take(end.position), pieces);
  state_ = State::kBefore;
  return true;
}

bool MarkedSplitter::take_before() {
  if (!held_.skip_blanks()) return false;
  if (is_partial(held_.view(), kFenceMark)) return false;
  const bool fence = held_.starts_with(kFenceMark);
  if (fence) held_.take(kFenceMark.size());
  state_ = fence ? State::kFence : State::kArguments;
  return true;
}

// The language after the fence, which a line or the arguments end.
bool MarkedSplitter::take_fence() {
  const MarkerMatch end = held_.find(kAfterFence);
  if (!end.found()) return false;
  held_.take(end.position);
  state_ = State::kArguments;
  return true;
}

bool MarkedSplitter::take_arguments(std::vector<OutputPiece>* pieces) {
  if (!any_arguments_) held_.skip_blanks();
  const MarkerMatch marker = held_.find(kInCall);
  if (!marker.found()) {
    // What may be the begin of a marker, and a fence before it, waits.
    const auto waits = [](char c) { return is_blank(c) || c == '`'; };
    const size_t sure = held_.without_waiting(held_.sure_end(), waits);
    append_piece(Kind::kArguments, held_.take(sure), pieces);
    any_arguments_ = any_arguments_ || sure != 0;
    return false;
  }
  const std::string_view rest = without_fence(held_.take(marker.position));
  append_piece(Kind::kArguments, rest, pieces);
  if (rest.empty() && !any_arguments_) append_piece(Kind::kArguments, "{}", pieces);
  if (kInCall[marker.marker] == kCallEnd) held_.take(kCallEnd.size());
  state_ = State::kBetween;
  return true;
}

bool MarkedSplitter::advance(std::vector<OutputPiece>* pieces) {
  switch (state_) {
    case State::kText:
      return take_text(pieces);
    case State::kBetween:
      return take_between();
    case State::kHeader:
      return take_header(pieces);
    case State::kSeparated:
      return take_separated(pieces);
    case State::kName:
      return take_name(pieces);
    case State::kBefore:
      return take_before();
    case State::kFence:
      return take_fence();
    case State::kArguments:
      return take_arguments(pieces);
  }
  return false;
}

void MarkedSplitter::push(std::string_view text, std::vector<OutputPiece>* pieces) {
  held_.append(text);
  while (advance(pieces)) {
  }
}

ToolSplitter::Within MarkedSplitter::within() const {
  switch (state_) {
    case State::kText:
    case State::kBetween:
      return Within::kNothing;
    case State::kHeader:
    case State::kSeparated:
    case State::kName:
      return Within::kHeader;
    case State::kBefore:
    case State::kFence:
    case State::kArguments:
      return Within::kArguments;
  }
  return Within::kNothing;
}

void MarkedSplitter::finish(std::vector<OutputPiece>* pieces) {
  switch (state_) {
    case State::kText:
      if (after_call_) held_.skip_blanks();
      append_piece(Kind::kContent, held_.view(), pieces);
      break;
    case State::kBetween:
      append_piece(Kind::kContent, held_.view(), pieces);  // half a marker
      break;
    case State::kHeader:
      append_piece(Kind::kContent, kCallBegin, pieces);
      append_piece(Kind::kContent, held_.view(), pieces);
      break;
    case State::kSeparated:
      if (trim_right(trim_left(header_)) != kFunction) begin_call(header_, pieces);
      break;
    case State::kName:
      begin_call(held_.view(), pieces);
      break;
    case State::kArguments:
      append_piece(Kind::kArguments, without_fence(held_.view()), pieces);
      break;
    case State::kBefore:
    case State::kFence:
      break;
  }
  held_.clear();
}

}  // namespace fathom::text
