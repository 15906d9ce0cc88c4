#include "text/tools/dsml_splitter.h"

#include <nlohmann/json.hpp>

#include "text/answer/markers.h"

namespace fathom::text {
namespace {

using Kind = OutputPiece::Kind;

constexpr std::string_view kInvoke = "<｜DSML｜invoke";
constexpr std::string_view kInvokeEnd = "</｜DSML｜invoke>";
constexpr std::string_view kParameter = "<｜DSML｜parameter";
constexpr std::string_view kParameterEnd = "</｜DSML｜parameter>";
constexpr std::string_view kTagEnd[] = {">"};
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

bool DsmlSplitter::take_text(std::vector<OutputPiece>* pieces) {
  if (after_call_ && !held_.skip_blanks()) return false;
  const MarkerMatch open = held_.find({&block_.open, 1});
  const size_t end = open.found() ? open.position : held_.sure_end();
  std::string_view sure = held_.view().substr(0, end);
  if (open.found()) {
    if (sure.ends_with(kPreambleEnd)) sure.remove_suffix(kPreambleEnd.size());
  } else {
    for (size_t i = 0; i < kPreambleEnd.size() && sure.ends_with('\n'); ++i) sure.remove_suffix(1);
  }
  append_piece(Kind::kContent, sure, pieces);
  if (!sure.empty()) after_call_ = false;
  held_.take(open.found() ? end + block_.open.size() : sure.size());
  if (!open.found()) return false;
  state_ = State::kBetween;
  return true;
}

bool DsmlSplitter::take_between() {
  if (!held_.skip_blanks()) return false;
  if (held_.starts_with(kInvoke)) {
    held_.take(kInvoke.size());
    state_ = State::kInvokeTag;
    return true;
  }
  if (is_partial(held_.view(), kInvoke) || is_partial(held_.view(), block_.close)) return false;
  // The end of the block, or text that does not belong here.
  if (held_.starts_with(block_.close)) held_.take(block_.close.size());
  state_ = State::kText;
  after_call_ = true;
  return true;
}

bool DsmlSplitter::take_invoke_tag(std::vector<OutputPiece>* pieces) {
  const MarkerMatch end = held_.find(kTagEnd);
  if (!end.found()) return false;
  const std::string_view tag = held_.take(end.position + 1).substr(0, end.position);
  append_piece(Kind::kCall, attribute(tag, "name"), pieces);
  any_parameters_ = false;
  may_be_raw_ = true;
  const bool closed = tag.ends_with('/');
  state_ = State::kInvoke;
  if (closed) end_call(pieces);
  return true;
}

void DsmlSplitter::end_call(std::vector<OutputPiece>* pieces) {
  append_piece(Kind::kArguments, any_parameters_ ? "}" : "{}", pieces);
  state_ = State::kBetween;
}

bool DsmlSplitter::take_invoke(std::vector<OutputPiece>* pieces) {
  if (!held_.skip_blanks()) return false;
  if (held_.starts_with(kParameter)) {
    held_.take(kParameter.size());
    state_ = State::kParameterTag;
    return true;
  }
  const bool closed = held_.starts_with(kInvokeEnd);
  if (closed || held_.starts_with(block_.close)) {
    if (closed) held_.take(kInvokeEnd.size());
    end_call(pieces);
    return true;
  }
  for (std::string_view tag : {kParameter, kInvokeEnd, block_.close}) {
    if (is_partial(held_.view(), tag)) return false;
  }
  if (held_.starts_with("{") && may_be_raw_) {
    state_ = State::kRaw;
    return true;
  }
  // Text outside the parameters, which the arguments have no place for.
  may_be_raw_ = false;
  held_.take(held_.view().find('<', 1));
  return !held_.view().empty();
}

bool DsmlSplitter::take_parameter_tag(std::vector<OutputPiece>* pieces) {
  const MarkerMatch end = held_.find(kTagEnd);
  if (!end.found()) return false;
  const std::string_view tag = held_.take(end.position + 1).substr(0, end.position);
  const bool is_string = attribute(tag, "string") != "false";
  std::string begin = any_parameters_ ? ", \"" : "{\"";
  begin += json_escaped(attribute(tag, "name"));
  begin += is_string ? "\": \"" : "\": ";
  append_piece(Kind::kArguments, begin, pieces);
  any_parameters_ = true;
  may_be_raw_ = false;
  state_ = is_string ? State::kString : State::kValue;
  return true;
}

bool DsmlSplitter::take_string(std::vector<OutputPiece>* pieces) {
  const std::string_view ends[] = {kParameterEnd, kInvokeEnd, block_.close};
  const MarkerMatch end = held_.find(ends);
  const size_t sure = end.found() ? end.position : held_.sure_end();
  append_piece(Kind::kArguments, json_escaped(held_.take(sure)), pieces);
  if (!end.found()) return false;
  append_piece(Kind::kArguments, "\"", pieces);
  if (end.marker == 0) held_.take(kParameterEnd.size());
  state_ = State::kInvoke;
  return true;
}

bool DsmlSplitter::take_value(std::vector<OutputPiece>* pieces) {
  const std::string_view ends[] = {kParameterEnd, kInvokeEnd, block_.close};
  const MarkerMatch end = held_.find(ends);
  if (!end.found()) return false;
  const std::string_view value = held_.take(end.position);
  const std::string_view trimmed = trim_left(trim_right(value));
  if (nlohmann::json::accept(trimmed)) {
    append_piece(Kind::kArguments, trimmed, pieces);
  } else {
    append_piece(Kind::kArguments, '"' + json_escaped(value) + '"', pieces);
  }
  if (end.marker == 0) held_.take(kParameterEnd.size());
  state_ = State::kInvoke;
  return true;
}

bool DsmlSplitter::take_raw(std::vector<OutputPiece>* pieces) {
  const std::string_view ends[] = {kInvokeEnd, block_.close};
  const MarkerMatch end = held_.find(ends);
  const size_t whole = end.found() ? end.position : held_.sure_end();
  const size_t sure = held_.without_waiting(whole, is_blank);
  append_piece(Kind::kArguments, held_.take(sure), pieces);
  if (!end.found()) return false;
  held_.take(whole - sure);
  if (end.marker == 0) held_.take(kInvokeEnd.size());
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
  held_.append(text);
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
      if (after_call_) held_.skip_blanks();
      append_piece(Kind::kContent, held_.view(), pieces);
      break;
    case State::kBetween:
      append_piece(Kind::kContent, held_.view(), pieces);  // half a tag
      break;
    case State::kInvokeTag:
      append_piece(Kind::kContent, kInvoke, pieces);
      append_piece(Kind::kContent, held_.view(), pieces);
      break;
    case State::kString:
      append_piece(Kind::kArguments, json_escaped(held_.view()), pieces);
      break;
    case State::kRaw:
      append_piece(Kind::kArguments, trim_right(held_.view()), pieces);
      break;
    case State::kInvoke:
    case State::kParameterTag:
    case State::kValue:
      break;
  }
  held_.clear();
}

}  // namespace fathom::text
