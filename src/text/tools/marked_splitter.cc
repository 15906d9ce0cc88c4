#include "text/tools/marked_splitter.h"

#include <algorithm>

#include "text/answer/markers.h"

namespace fathom::text {
namespace {

using Kind = OutputPiece::Kind;

constexpr std::string_view kInText[] = {kCallsBegin, kCallBegin, kCallsEnd};
constexpr std::string_view kInHeader[] = {kToolSeparator, kCallEnd, kCallsEnd, kCallBegin, kCallsBegin};
constexpr std::string_view kInCall[] = {kCallEnd, kCallsEnd, kCallBegin, kCallsBegin};
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

bool MarkedSplitter::skip_blanks() {
  pending_.erase(0, pending_.size() - trim_left(pending_).size());
  return !pending_.empty();
}

void MarkedSplitter::begin_call(std::string_view name, std::vector<OutputPiece>* pieces) {
  append_piece(Kind::kCall, trim_left(trim_right(name)), pieces);
  any_arguments_ = false;
}

bool MarkedSplitter::take_text(std::vector<OutputPiece>* pieces) {
  if (after_call_ && !skip_blanks()) return false;
  const MarkerMatch marker = find_marker(pending_, kInText);
  std::string_view sure = pending_;
  if (marker.found()) {
    sure = sure.substr(0, marker.position);
  } else {
    sure.remove_suffix(marker_prefix_length(sure, kInText));
  }
  sure = trim_right(sure);  // blanks before a call are not content
  append_piece(Kind::kContent, sure, pieces);
  if (!sure.empty()) after_call_ = false;
  if (!marker.found()) {
    pending_.erase(0, sure.size());
    return false;
  }
  pending_.erase(0, marker.position + kInText[marker.marker].size());
  if (kInText[marker.marker] == kCallsBegin) state_ = State::kBetween;
  if (kInText[marker.marker] == kCallBegin) state_ = State::kHeader;
  return true;
}

bool MarkedSplitter::take_between() {
  if (!skip_blanks()) return false;
  if (pending_.starts_with(kCallBegin)) {
    pending_.erase(0, kCallBegin.size());
    state_ = State::kHeader;
    return true;
  }
  if (is_partial(pending_, kCallBegin) || is_partial(pending_, kCallsEnd)) return false;
  // The end of the block, or text that does not belong here.
  if (pending_.starts_with(kCallsEnd)) pending_.erase(0, kCallsEnd.size());
  state_ = State::kText;
  after_call_ = true;
  return true;
}

bool MarkedSplitter::take_header(std::vector<OutputPiece>* pieces) {
  const MarkerMatch marker = find_marker(pending_, kInHeader);
  if (!marker.found()) return false;
  header_ = pending_.substr(0, marker.position);
  pending_.erase(0, marker.position);
  if (kInHeader[marker.marker] == kToolSeparator) {
    pending_.erase(0, kToolSeparator.size());
    state_ = State::kSeparated;
    return true;
  }
  // No call after all.
  append_piece(Kind::kContent, kCallBegin, pieces);
  append_piece(Kind::kContent, header_, pieces);
  if (kInHeader[marker.marker] == kCallEnd) pending_.erase(0, kCallEnd.size());
  state_ = State::kBetween;
  return true;
}

bool MarkedSplitter::take_separated(std::vector<OutputPiece>* pieces) {
  if (!skip_blanks()) return false;
  for (std::string_view end : kInCall) {
    if (is_partial(pending_, end)) return false;
  }
  const bool ends = find_marker(pending_, kInCall).position == 0;
  const bool named = trim_right(trim_left(header_)) != kFunction;
  if (named || pending_[0] == '{' || pending_[0] == '`' || ends) {
    begin_call(header_, pieces);
    state_ = State::kBefore;
  } else {
    state_ = State::kName;
  }
  return true;
}

bool MarkedSplitter::take_name(std::vector<OutputPiece>* pieces) {
  const size_t line = pending_.find('\n');
  const MarkerMatch marker = find_marker(pending_, kInCall);
  const size_t end = std::min(line, marker.position);
  if (end == std::string::npos) return false;
  begin_call(std::string_view(pending_).substr(0, end), pieces);
  pending_.erase(0, end);
  state_ = State::kBefore;
  return true;
}

bool MarkedSplitter::take_before() {
  if (!skip_blanks()) return false;
  if (is_partial(pending_, kFenceMark)) return false;
  const bool fence = pending_.starts_with(kFenceMark);
  if (fence) pending_.erase(0, kFenceMark.size());
  state_ = fence ? State::kFence : State::kArguments;
  return true;
}

// The language after the fence, which a line or the arguments end.
bool MarkedSplitter::take_fence() {
  const size_t end = std::min(pending_.find_first_of("\n{"), find_marker(pending_, kInCall).position);
  if (end == std::string::npos) return false;
  pending_.erase(0, end);
  state_ = State::kArguments;
  return true;
}

bool MarkedSplitter::take_arguments(std::vector<OutputPiece>* pieces) {
  if (!any_arguments_) skip_blanks();
  const MarkerMatch marker = find_marker(pending_, kInCall);
  if (!marker.found()) {
    // What may be the begin of a marker, and a fence before it, waits.
    std::string_view sure = pending_;
    sure.remove_suffix(marker_prefix_length(sure, kInCall));
    while (!sure.empty() && (is_blank(sure.back()) || sure.back() == '`')) sure.remove_suffix(1);
    append_piece(Kind::kArguments, sure, pieces);
    any_arguments_ = any_arguments_ || !sure.empty();
    pending_.erase(0, sure.size());
    return false;
  }
  const std::string_view rest = without_fence(std::string_view(pending_).substr(0, marker.position));
  append_piece(Kind::kArguments, rest, pieces);
  if (rest.empty() && !any_arguments_) append_piece(Kind::kArguments, "{}", pieces);
  pending_.erase(0, marker.position);
  if (kInCall[marker.marker] == kCallEnd) pending_.erase(0, kCallEnd.size());
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
  pending_ += text;
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
      if (after_call_) skip_blanks();
      append_piece(Kind::kContent, pending_, pieces);
      break;
    case State::kBetween:
      append_piece(Kind::kContent, pending_, pieces);  // half a marker
      break;
    case State::kHeader:
      append_piece(Kind::kContent, kCallBegin, pieces);
      append_piece(Kind::kContent, pending_, pieces);
      break;
    case State::kSeparated:
      if (trim_right(trim_left(header_)) != kFunction) begin_call(header_, pieces);
      break;
    case State::kName:
      begin_call(pending_, pieces);
      break;
    case State::kArguments:
      append_piece(Kind::kArguments, without_fence(pending_), pieces);
      break;
    case State::kBefore:
    case State::kFence:
      break;
  }
  pending_.clear();
}

}  // namespace fathom::text
