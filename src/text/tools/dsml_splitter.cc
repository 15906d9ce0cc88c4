#include "text/tools/dsml_splitter.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "text/answer/markers.h"

namespace fathom::text {
namespace {

using Kind = OutputPiece::Kind;

constexpr std::string_view kInvoke = "<｜DSML｜invoke";
constexpr std::string_view kInvokeEnd = "</｜DSML｜invoke>";
constexpr std::string_view kParameter = "<｜DSML｜parameter";
constexpr std::string_view kParameterEnd = "</｜DSML｜parameter>";
constexpr std::string_view kPreambleEnd = "\n\n";  // stands between the content and the calls

// The value of attribute `name` in the inside of a tag, or empty.
std::string_view attribute(std::string_view tag, std::string_view name) {
  for (size_t at = tag.find(name); at != std::string_view::npos; at = tag.find(name, at + 1)) {
    std::string_view rest = tag.substr(at + name.size());
    if (at == 0 || !is_blank(tag[at - 1]) || !rest.starts_with("=\"")) continue;
    rest.remove_prefix(2);
    const size_t end = rest.find('"');
    if (end != std::string_view::npos) return rest.substr(0, end);
  }
  return {};
}

// The inside of a JSON string. Bytes of a character may come one by one.
std::string json_escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) >= 0x20) {
          out += c;
        } else {
          constexpr const char* kHex = "0123456789abcdef";
          out += "\\u00";
          out += kHex[static_cast<unsigned char>(c) >> 4];
          out += kHex[c & 15];
        }
    }
  }
  return out;
}

}  // namespace

bool DsmlSplitter::skip_blanks() {
  pending_.erase(0, pending_.size() - trim_left(pending_).size());
  return !pending_.empty();
}

bool DsmlSplitter::take_text(std::vector<OutputPiece>* pieces) {
  if (after_call_ && !skip_blanks()) return false;
  const size_t open = pending_.find(block_.open);
  const bool found = open != std::string::npos;
  std::string_view sure = pending_;
  if (found) {
    sure = sure.substr(0, open);
    if (sure.ends_with(kPreambleEnd)) sure.remove_suffix(kPreambleEnd.size());
  } else {
    sure.remove_suffix(marker_prefix_length(sure, {&block_.open, 1}));
    for (size_t i = 0; i < kPreambleEnd.size() && sure.ends_with('\n'); ++i) sure.remove_suffix(1);
  }
  append_piece(Kind::kContent, sure, pieces);
  if (!sure.empty()) after_call_ = false;
  if (!found) {
    pending_.erase(0, sure.size());
    return false;
  }
  pending_.erase(0, open + block_.open.size());
  state_ = State::kBetween;
  return true;
}

bool DsmlSplitter::take_between() {
  if (!skip_blanks()) return false;
  if (pending_.starts_with(kInvoke)) {
    pending_.erase(0, kInvoke.size());
    state_ = State::kInvokeTag;
    return true;
  }
  if (is_partial(pending_, kInvoke) || is_partial(pending_, block_.close)) return false;
  // The end of the block, or text that does not belong here.
  if (pending_.starts_with(block_.close)) pending_.erase(0, block_.close.size());
  state_ = State::kText;
  after_call_ = true;
  return true;
}

bool DsmlSplitter::take_invoke_tag(std::vector<OutputPiece>* pieces) {
  const size_t end = pending_.find('>');
  if (end == std::string::npos) return false;
  const std::string_view tag = std::string_view(pending_).substr(0, end);
  append_piece(Kind::kCall, attribute(tag, "name"), pieces);
  any_parameters_ = false;
  may_be_raw_ = true;
  const bool closed = tag.ends_with('/');
  pending_.erase(0, end + 1);
  state_ = State::kInvoke;
  if (closed) end_call(pieces);
  return true;
}

void DsmlSplitter::end_call(std::vector<OutputPiece>* pieces) {
  append_piece(Kind::kArguments, any_parameters_ ? "}" : "{}", pieces);
  state_ = State::kBetween;
}

bool DsmlSplitter::take_invoke(std::vector<OutputPiece>* pieces) {
  if (!skip_blanks()) return false;
  if (pending_.starts_with(kParameter)) {
    pending_.erase(0, kParameter.size());
    state_ = State::kParameterTag;
    return true;
  }
  const bool closed = pending_.starts_with(kInvokeEnd);
  if (closed || pending_.starts_with(block_.close)) {
    if (closed) pending_.erase(0, kInvokeEnd.size());
    end_call(pieces);
    return true;
  }
  for (std::string_view tag : {kParameter, kInvokeEnd, block_.close}) {
    if (is_partial(pending_, tag)) return false;
  }
  if (pending_[0] == '{' && may_be_raw_) {
    state_ = State::kRaw;
    return true;
  }
  // Text outside the parameters, which the arguments have no place for.
  may_be_raw_ = false;
  pending_.erase(0, std::min(pending_.find('<', 1), pending_.size()));
  return !pending_.empty();
}

bool DsmlSplitter::take_parameter_tag(std::vector<OutputPiece>* pieces) {
  const size_t end = pending_.find('>');
  if (end == std::string::npos) return false;
  const std::string_view tag = std::string_view(pending_).substr(0, end);
  const bool is_string = attribute(tag, "string") != "false";
  std::string begin = any_parameters_ ? ", \"" : "{\"";
  begin += json_escaped(attribute(tag, "name"));
  begin += is_string ? "\": \"" : "\": ";
  append_piece(Kind::kArguments, begin, pieces);
  any_parameters_ = true;
  may_be_raw_ = false;
  pending_.erase(0, end + 1);
  state_ = is_string ? State::kString : State::kValue;
  return true;
}

bool DsmlSplitter::take_string(std::vector<OutputPiece>* pieces) {
  const std::string_view ends[] = {kParameterEnd, kInvokeEnd, block_.close};
  const MarkerMatch end = find_marker(pending_, ends);
  const size_t sure = end.found() ? end.position : pending_.size() - marker_prefix_length(pending_, ends);
  append_piece(Kind::kArguments, json_escaped(std::string_view(pending_).substr(0, sure)), pieces);
  pending_.erase(0, sure);
  if (!end.found()) return false;
  append_piece(Kind::kArguments, "\"", pieces);
  if (end.marker == 0) pending_.erase(0, kParameterEnd.size());
  state_ = State::kInvoke;
  return true;
}

bool DsmlSplitter::take_value(std::vector<OutputPiece>* pieces) {
  const std::string_view ends[] = {kParameterEnd, kInvokeEnd, block_.close};
  const MarkerMatch end = find_marker(pending_, ends);
  if (!end.found()) return false;
  const std::string_view value = std::string_view(pending_).substr(0, end.position);
  const std::string_view trimmed = trim_left(trim_right(value));
  if (nlohmann::json::accept(trimmed)) {
    append_piece(Kind::kArguments, trimmed, pieces);
  } else {
    append_piece(Kind::kArguments, '"' + json_escaped(value) + '"', pieces);
  }
  pending_.erase(0, end.position);
  if (end.marker == 0) pending_.erase(0, kParameterEnd.size());
  state_ = State::kInvoke;
  return true;
}

bool DsmlSplitter::take_raw(std::vector<OutputPiece>* pieces) {
  const std::string_view ends[] = {kInvokeEnd, block_.close};
  const MarkerMatch end = find_marker(pending_, ends);
  std::string_view sure = pending_;
  sure = sure.substr(0, end.found() ? end.position : sure.size() - marker_prefix_length(sure, ends));
  sure = trim_right(sure);
  append_piece(Kind::kArguments, sure, pieces);
  pending_.erase(0, end.found() ? end.position : sure.size());
  if (!end.found()) return false;
  if (end.marker == 0) pending_.erase(0, kInvokeEnd.size());
  state_ = State::kBetween;
  return true;
}

bool DsmlSplitter::advance(std::vector<OutputPiece>* pieces) {
  switch (state_) {
    case State::kText:
      return take_text(pieces);
    case State::kBetween:
      return take_between();
    case State::kInvokeTag:
      return take_invoke_tag(pieces);
    case State::kInvoke:
      return take_invoke(pieces);
    case State::kParameterTag:
      return take_parameter_tag(pieces);
    case State::kString:
      return take_string(pieces);
    case State::kValue:
      return take_value(pieces);
    case State::kRaw:
      return take_raw(pieces);
  }
  return false;
}

void DsmlSplitter::push(std::string_view text, std::vector<OutputPiece>* pieces) {
  pending_ += text;
  while (advance(pieces)) {
  }
}

ToolSplitter::Within DsmlSplitter::within() const {
  switch (state_) {
    case State::kText:
    case State::kBetween:
      return Within::kNothing;
    case State::kInvokeTag:
      return Within::kHeader;
    case State::kInvoke:
    case State::kParameterTag:
    case State::kString:
    case State::kValue:
    case State::kRaw:
      return Within::kArguments;
  }
  return Within::kNothing;
}

void DsmlSplitter::finish(std::vector<OutputPiece>* pieces) {
  switch (state_) {
    case State::kText:
      if (after_call_) skip_blanks();
      append_piece(Kind::kContent, pending_, pieces);
      break;
    case State::kBetween:
      append_piece(Kind::kContent, pending_, pieces);  // half a tag
      break;
    case State::kInvokeTag:
      append_piece(Kind::kContent, kInvoke, pieces);
      append_piece(Kind::kContent, pending_, pieces);
      break;
    case State::kString:
      append_piece(Kind::kArguments, json_escaped(pending_), pieces);
      break;
    case State::kRaw:
      append_piece(Kind::kArguments, trim_right(pending_), pieces);
      break;
    case State::kInvoke:
    case State::kParameterTag:
    case State::kValue:
      break;
  }
  pending_.clear();
}

}  // namespace fathom::text
