// The methods of text.
#include <algorithm>
#include <functional>
#include <unordered_map>

#include "text/template/formatting.h"
#include "text/template/interpreter.h"
#include "text/template/printing.h"
#include "text/template/splitting.h"
#include "text/template/unicode.h"

namespace fathom::text::jinja {
namespace {

// The arguments of a method that takes them by position only.
ValueList positional(const char* method, const Arguments& arguments, size_t least, size_t most) {
  if (!arguments.named.empty()) fail("str.{}() takes no keyword arguments", method);
  ValueList values = arguments.positional;
  if (values.size() < least || values.size() > most) {
    fail("{}() takes {} to {} arguments ({} given)", method, least, most, values.size());
  }
  values.resize(most);
  return values;
}

const std::string& want_text(const char* method, const Value& value) {
  if (!value.is_string()) fail("{}() argument must be str, not {}", method, type_name(value));
  return value.text();
}

Value same_type(Interpreter& run, const Value& self, std::string text) {
  return run.heap().string(std::move(text), self.as<StringObject>().markup);
}

template <std::string (*kConvert)(std::string_view)>
Value converted(Interpreter& run, const Value& self, const Arguments& arguments) {
  positional("convert", arguments, 0, 0);
  run.heap().step_bytes(4 * self.text().size());
  return same_type(run, self, kConvert(self.text()));
}

template <bool (*kTest)(uint32_t)>
Value all_code_points(Interpreter& run, const Value& self, const Arguments& arguments) {
  positional("test", arguments, 0, 0);
  run.heap().step_bytes(4 * self.text().size());
  const auto codes = code_points(self.text());
  return Value::boolean(!codes.empty() && std::all_of(codes.begin(), codes.end(), kTest));
}

bool has_case(std::string_view text, bool (*wanted)(uint32_t), bool (*unwanted)(uint32_t)) {
  bool found = false;
  for (const uint32_t code : code_points(text)) {
    if (unwanted(code) || is_title(code)) return false;
    found = found || wanted(code);
  }
  return found;
}
Value is_lower_text(Interpreter&, const Value& self, const Arguments& arguments) {
  positional("islower", arguments, 0, 0);
  return Value::boolean(has_case(self.text(), is_lower, is_upper));
}
Value is_upper_text(Interpreter&, const Value& self, const Arguments& arguments) {
  positional("isupper", arguments, 0, 0);
  return Value::boolean(has_case(self.text(), is_upper, is_lower));
}
Value is_title_text(Interpreter&, const Value& self, const Arguments& arguments) {
  positional("istitle", arguments, 0, 0);
  bool cased = false;
  bool inside = false;
  for (const uint32_t code : code_points(self.text())) {
    const bool starts = is_upper(code) || is_title(code);
    if (starts ? inside : is_lower(code) && !inside) return Value::boolean(false);
    inside = starts || is_lower(code);
    cased = cased || inside;
  }
  return Value::boolean(cased);
}
Value is_ascii_text(Interpreter&, const Value& self, const Arguments& arguments) {
  positional("isascii", arguments, 0, 0);
  return Value::boolean(self.as<StringObject>().ascii());
}
Value is_printable_text(Interpreter&, const Value& self, const Arguments& arguments) {
  positional("isprintable", arguments, 0, 0);
  const auto codes = code_points(self.text());
  return Value::boolean(std::all_of(codes.begin(), codes.end(), is_printable));
}
Value is_identifier_text(Interpreter&, const Value& self, const Arguments& arguments) {
  positional("isidentifier", arguments, 0, 0);
  const auto codes = code_points(self.text());
  return Value::boolean(!codes.empty() && is_identifier_start(codes[0]) &&
                        std::all_of(codes.begin(), codes.end(), is_identifier_part));
}

template <bool kLeft, bool kRight>
Value strip_method(Interpreter& run, const Value& self, const Arguments& arguments) {
  const ValueList given = positional("strip", arguments, 0, 1);
  run.heap().step_bytes(self.text().size());
  if (given[0].is_missing() || given[0].is_none())
    return same_type(run, self, strip_text(self.text(), kLeft, kRight));
  return same_type(run, self, strip_characters(self.text(), want_text("strip", given[0]), kLeft, kRight));
}

template <bool kFromRight>
Value split_method(Interpreter& run, const Value& self, const Arguments& arguments) {
  const ValueList given = bind("split", arguments, {"sep", "maxsplit"});
  const int64_t most = given[1].is_missing() ? -1 : want_int("split", given[1]);
  run.heap().step_bytes(self.text().size());
  std::vector<std::string_view> parts;
  if (given[0].is_missing() || given[0].is_none()) {
    parts = split_spaces(self.text(), most, kFromRight);
  } else {
    parts = split_text(self.text(), want_text("split", given[0]), most, kFromRight);
  }
  ValueList items;
  for (const auto& part : parts) items.push_back(same_type(run, self, std::string(part)));
  return run.heap().list(std::move(items));
}

Value split_lines_method(Interpreter& run, const Value& self, const Arguments& arguments) {
  const ValueList given = bind("splitlines", arguments, {"keepends"});
  ValueList items;
  for (const auto& line :
       split_lines(self.text(), !given[0].is_missing() && want_int("splitlines", given[0]) != 0)) {
    items.push_back(same_type(run, self, std::string(line)));
  }
  return run.heap().list(std::move(items));
}

// The part of a text that start and end arguments choose; false when it lies outside.
struct Window {
  std::string_view text;
  int64_t start = 0;
};
bool window(Interpreter& run, const Value& self, const Value& start, const Value& end, Window& out) {
  const auto& object = self.as<StringObject>();
  const auto place = [&](const char* what, const Value& value, int64_t absent) {
    if (value.is_missing() || value.is_none()) return absent;
    int64_t i = want_int(what, value);
    if (i < 0) i = std::max<int64_t>(i + object.length, 0);
    return i;
  };
  out.start = place("start", start, 0);
  const int64_t stop = std::min(place("end", end, object.length), object.length);
  if (out.start > stop) return false;
  run.heap().step_bytes(object.text.size());
  const size_t from = offset_of(object.text, out.start);
  const size_t to = stop == object.length ? object.text.size() : offset_of(object.text, stop);
  out.text = std::string_view(object.text).substr(from, to - from);
  return true;
}

template <bool kLast, bool kMustExist>
Value find_method(Interpreter& run, const Value& self, const Arguments& arguments) {
  const ValueList given = positional("find", arguments, 1, 3);
  const std::string& needle = want_text("find", given[0]);
  Window part;
  if (window(run, self, given[1], given[2], part)) {
    const size_t at = kLast ? find_last_text(part.text, needle) : find_text(part.text, needle);
    if (at != part.text.npos) {
      return Value::integer(part.start + static_cast<int64_t>(code_points(part.text.substr(0, at)).size()));
    }
  }
  if (kMustExist) fail("substring not found");
  return Value::integer(-1);
}

Value count_method(Interpreter& run, const Value& self, const Arguments& arguments) {
  const ValueList given = positional("count", arguments, 1, 3);
  const std::string& needle = want_text("count", given[0]);
  Window part;
  if (!window(run, self, given[1], given[2], part)) return Value::integer(0);
  if (needle.empty()) return Value::integer(static_cast<int64_t>(code_points(part.text).size()) + 1);
  int64_t count = 0;
  for (size_t at = 0; (at = find_text(part.text, needle, at)) != part.text.npos; at += needle.size()) {
    run.heap().step();
    ++count;
  }
  return Value::integer(count);
}

template <bool kEnd>
Value affix_method(Interpreter& run, const Value& self, const Arguments& arguments) {
  const ValueList given = positional(kEnd ? "endswith" : "startswith", arguments, 1, 3);
  Window part;
  const bool inside = window(run, self, given[1], given[2], part);
  const auto matches = [&](const Value& affix) {
    const std::string& text = want_text(kEnd ? "endswith" : "startswith", affix);
    return inside && (kEnd ? part.text.ends_with(text) : part.text.starts_with(text));
  };
  if (!given[0].is(Kind::kTuple)) return Value::boolean(matches(given[0]));
  return Value::boolean(std::any_of(given[0].items().begin(), given[0].items().end(), matches));
}

template <bool kSuffix>
Value remove_affix(Interpreter& run, const Value& self, const Arguments& arguments) {
  const ValueList given = positional("removeprefix", arguments, 1, 1);
  const std::string& affix = want_text("removeprefix", given[0]);
  std::string_view text = self.text();
  if (kSuffix) {
    if (text.ends_with(affix)) text.remove_suffix(affix.size());
  } else if (text.starts_with(affix)) {
    text.remove_prefix(affix.size());
  }
  return same_type(run, self, std::string(text));
}

Value replace_method(Interpreter& run, const Value& self, const Arguments& arguments) {
  const ValueList given = positional("replace", arguments, 2, 3);
  const int64_t most = given[2].is_missing() ? -1 : want_int("replace", given[2]);
  std::string by = want_text("replace", given[1]);
  const auto& object = self.as<StringObject>();
  if (object.markup && !given[1].as<StringObject>().markup) by = escape_html(by);
  return same_type(run, self,
                   replace_text(run.heap(), object.text, want_text("replace", given[0]), by, most));
}

Value join_method(Interpreter& run, const Value& self, const Arguments& arguments) {
  const ValueList given = positional("join", arguments, 1, 1);
  std::string out;
  bool first = true;
  const auto walk = iterate(run.heap(), given[0]);
  for (Value item; walk->advance(item); first = false) {
    if (!item.is_string()) fail("sequence item: expected str instance, {} found", type_name(item));
    if (!first) append_str(run.heap(), out, self);
    append_str(run.heap(), out, item);
  }
  return same_type(run, self, std::move(out));
}

template <bool kLast>
Value partition_method(Interpreter& run, const Value& self, const Arguments& arguments) {
  const ValueList given = positional("partition", arguments, 1, 1);
  const std::string& separator = want_text("partition", given[0]);
  if (separator.empty()) fail("empty separator");
  const std::string& text = self.text();
  run.heap().step_bytes(text.size());
  const size_t at = kLast ? find_last_text(text, separator) : find_text(text, separator);
  const auto make = [&](std::string part) { return same_type(run, self, std::move(part)); };
  if (at == std::string::npos) {
    return run.heap().tuple(kLast ? ValueList{make(""), make(""), self}
                                  : ValueList{self, make(""), make("")});
  }
  return run.heap().tuple(
      {make(text.substr(0, at)), make(separator), make(text.substr(at + separator.size()))});
}

template <char kAlign>
Value justify_method(Interpreter& run, const Value& self, const Arguments& arguments) {
  const ValueList given = positional("justify", arguments, 1, 2);
  const std::string fill = given[1].is_missing() ? " " : want_text("justify", given[1]);
  if (code_points(fill).size() != 1) fail("The fill character must be exactly one character long");
  const int64_t width = want_int("justify", given[0]);
  if (kAlign == '^') return same_type(run, self, center_text(run.heap(), self.text(), width, fill));
  return same_type(run, self, pad_text(run.heap(), self.text(), width, kAlign, fill));
}

Value zero_fill_method(Interpreter& run, const Value& self, const Arguments& arguments) {
  const ValueList given = positional("zfill", arguments, 1, 1);
  const int64_t width = want_int("zfill", given[0]);
  const std::string& text = self.text();
  const bool sign = !text.empty() && (text[0] == '+' || text[0] == '-');
  const std::string body = pad_text(run.heap(), text.substr(sign ? 1 : 0), width - (sign ? 1 : 0), '>', "0");
  return same_type(run, self, (sign ? text.substr(0, 1) : "") + body);
}

Value format_method(Interpreter& run, const Value& self, const Arguments& arguments) {
  return brace_format(run, self, arguments);
}

Value unsupported_method(Interpreter&, const Value&, const Arguments&) {
  fail("this method of str is not supported in chat templates");
}

}  // namespace

NativeFunction find_string_method(const std::string& name) {
  static const std::unordered_map<std::string, NativeFunction> kMethods = {
      {"capitalize", converted<capitalize>},
      {"casefold", unsupported_method},
      {"center", justify_method<'^'>},
      {"count", count_method},
      {"encode", unsupported_method},
      {"endswith", affix_method<true>},
      {"expandtabs", unsupported_method},
      {"find", find_method<false, false>},
      {"format", format_method},
      {"format_map", unsupported_method},
      {"index", find_method<false, true>},
      {"isalnum", all_code_points<is_alnum>},
      {"isalpha", all_code_points<is_alpha>},
      {"isascii", is_ascii_text},
      {"isdecimal", all_code_points<is_decimal>},
      {"isdigit", all_code_points<is_digit>},
      {"isidentifier", is_identifier_text},
      {"islower", is_lower_text},
      {"isnumeric", all_code_points<is_numeric>},
      {"isprintable", is_printable_text},
      {"isspace", all_code_points<is_space>},
      {"istitle", is_title_text},
      {"isupper", is_upper_text},
      {"join", join_method},
      {"ljust", justify_method<'<'>},
      {"lower", converted<to_lower>},
      {"lstrip", strip_method<true, false>},
      {"maketrans", unsupported_method},
      {"partition", partition_method<false>},
      {"removeprefix", remove_affix<false>},
      {"removesuffix", remove_affix<true>},
      {"replace", replace_method},
      {"rfind", find_method<true, false>},
      {"rindex", find_method<true, true>},
      {"rjust", justify_method<'>'>},
      {"rpartition", partition_method<true>},
      {"rsplit", split_method<true>},
      {"rstrip", strip_method<false, true>},
      {"split", split_method<false>},
      {"splitlines", split_lines_method},
      {"startswith", affix_method<false>},
      {"strip", strip_method<true, true>},
      {"swapcase", converted<swap_case>},
      {"title", converted<title_case>},
      {"translate", unsupported_method},
      {"upper", converted<to_upper>},
      {"zfill", zero_fill_method},
  };
  const auto it = kMethods.find(name);
  return it == kMethods.end() ? nullptr : it->second;
}

}  // namespace fathom::text::jinja
