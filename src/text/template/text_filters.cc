// Filters that make text.
#include <algorithm>

#include "text/template/filters.h"
#include "text/template/formatting.h"
#include "text/template/interpreter.h"
#include "text/template/printing.h"
#include "text/template/splitting.h"
#include "text/template/unicode.h"

namespace fathom::text::jinja {
namespace {

Value keep_mark(Heap& heap, const Value& like, std::string text) {
  return heap.string(std::move(text), like.as<StringObject>().markup);
}

template <std::string (*kConvert)(std::string_view)>
Value converted(Interpreter& run, const Value& input, const Arguments& arguments) {
  bind("filter", arguments, {});
  const Value text = soft_text(run.heap(), input);
  run.heap().step_bytes(4 * text.text().size());
  return keep_mark(run.heap(), text, kConvert(text.text()));
}

// Words begin after white space, dashes and opening brackets.
std::string title_words(std::string_view text) {
  std::string out;
  const auto parts_words = [](uint32_t c) {
    return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    size_t first = at;
    const bool gap = parts_words(next_code_point(text, first));
    while (at < text.size()) {
      size_t next = at;
      if (parts_words(next_code_point(text, next)) != gap) break;
      at = next;
    }
    // Letters among the separators' characters do not exist; both kinds of piece are cased alike.
    out += to_upper(text.substr(start, first - start));
    out += to_lower(text.substr(first, at - first));
  }
  return out;
}

Value trim_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("trim", arguments, {"chars"});
  const Value text = soft_text(run.heap(), input);
  if (given[0].is_missing() || given[0].is_none()) {
    return keep_mark(run.heap(), text, strip_text(text.text(), true, true));
  }
  if (!given[0].is_string()) fail("strip arg must be None or str");
  return keep_mark(run.heap(), text, strip_characters(text.text(), given[0].text(), true, true));
}

Value replace_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("replace", arguments, {"old", "new", "count"}, 2);
  Heap& heap = run.heap();
  const int64_t most = given[2].is_missing() || given[2].is_none() ? -1 : want_int("replace", given[2]);
  return heap.string(replace_text(heap, str(heap, input), str(heap, given[0]), str(heap, given[1]), most));
}

Value indent_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("indent", arguments, {"width", "first", "blank"});
  Heap& heap = run.heap();
  if (!input.is_string()) fail("indent needs text, not {}", type_name(input));
  std::string by;
  if (given[0].is_string()) {
    by = given[0].text();
  } else {
    const int64_t width = given[0].is_missing() ? 4 : want_int("indent", given[0]);
    heap.check_text(static_cast<size_t>(std::max<int64_t>(width, 0)));
    by.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  }
  const std::string text = input.text() + "\n";
  std::string out = flag(given[1]) ? by : "";
  bool first = true;
  for (const std::string_view line : split_lines(text, false)) {
    heap.check_text(out.size() + by.size() + line.size() + 1);
    heap.step_bytes(by.size() + line.size());
    if (!first) {
      out += '\n';
      if (!line.empty() || flag(given[2])) out += by;
    }
    out += line;
    first = false;
  }
  return keep_mark(heap, input, std::move(out));
}

Value truncate_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("truncate", arguments, {"length", "killwords", "end", "leeway"});
  Heap& heap = run.heap();
  const int64_t length = given[0].is_missing() ? 255 : want_int("truncate", given[0]);
  const std::string end = given[2].is_missing() ? "..." : given[2].is_string() ? given[2].text() : "";
  if (!given[2].is_missing() && !given[2].is_string()) fail("truncate needs text for its end");
  const int64_t leeway = given[3].is_missing() || given[3].is_none() ? 5 : want_int("truncate", given[3]);
  const auto end_length = static_cast<int64_t>(code_points(end).size());
  if (length < end_length) fail("expected length >= {}, got {}", end_length, length);
  if (leeway < 0) fail("expected leeway >= 0, got {}", leeway);
  if (length_of(input) < 0) fail("object of type '{}' has no len()", type_name(input));
  if (length_of(input) <= length || length_of(input) - length <= leeway) return input;
  if (!input.is_string()) fail("truncate needs text, not {}", type_name(input));
  std::string text = input.text().substr(0, offset_of(input.text(), length - end_length));
  if (!flag(given[1])) text = std::string(split_text(text, " ", 1, true)[0]);
  return keep_mark(heap, input, text + end);
}

Value wordcount_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  bind("wordcount", arguments, {});
  const Value text = soft_text(run.heap(), input);
  run.heap().step_bytes(4 * text.text().size());
  int64_t count = 0;
  bool inside = false;
  for (const uint32_t code : code_points(text.text())) {
    if (is_word(code) && !inside) ++count;
    inside = is_word(code);
  }
  return Value::integer(count);
}

Value center_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("center", arguments, {"width"});
  const Value text = soft_text(run.heap(), input);
  const int64_t width = given[0].is_missing() ? 80 : want_int("center", given[0]);
  return keep_mark(run.heap(), text, center_text(run.heap(), text.text(), width, " "));
}

Value format_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  Heap& heap = run.heap();
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    fail("can't handle positional and keyword arguments at the same time");
  }
  const Value text = soft_text(heap, input);
  if (arguments.named.empty()) return percent_format(heap, text, heap.tuple(arguments.positional));
  auto dict = heap.dict();
  for (const auto& [name, value] : arguments.named) dict->set(heap.string(name), value);
  return percent_format(heap, text, dict_value(std::move(dict)));
}

Value string_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  bind("string", arguments, {});
  return soft_text(run.heap(), input);
}

Value safe_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  bind("safe", arguments, {});
  return run.heap().string(str(run.heap(), input), true);
}

Value escape_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  bind("escape", arguments, {});
  if (input.is_string() && input.as<StringObject>().markup) return input;
  return run.heap().string(escape_html(str(run.heap(), input)), true);
}

Value force_escape_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  bind("forceescape", arguments, {});
  return run.heap().string(escape_html(str(run.heap(), input)), true);
}

Value tojson_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  Heap& heap = run.heap();
  JsonStyle style;
  style.ensure_ascii = flag(given[0]);
  style.sort_keys = flag(given[3]);
  if (!given[1].is_missing() && !given[1].is_none()) {
    style.pretty = true;
    style.item_separator = ",";
    if (given[1].is_string()) {
      style.indent = given[1].text();
    } else {
      const int64_t width = std::max<int64_t>(want_int("tojson", given[1]), 0);
      heap.check_text(static_cast<size_t>(width));
      style.indent.assign(static_cast<size_t>(width), ' ');
    }
  }
  if (!given[2].is_missing() && !given[2].is_none()) {
    const ValueList separators = to_list(heap, given[2]);
    if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string()) {
      fail("tojson separators must be two strings");
    }
    style.item_separator = separators[0].text();
    style.key_separator = separators[1].text();
  }
  return heap.string(to_json(heap, input, style));
}

std::string quote_url(std::string_view text, bool query) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !query);
    if (plain) {
      out += c;
    } else if (c == ' ' && query) {
      out += '+';
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

Value urlencode_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  bind("urlencode", arguments, {});
  Heap& heap = run.heap();
  if (input.is_string() || !is_iterable(input)) return heap.string(quote_url(str(heap, input), false));
  std::string out;
  const Value pairs = input.is(Kind::kDict) ? run.call(run.attribute(input, "items"), {}) : input;
  const auto walk = iterate(heap, pairs);
  for (Value item; walk->advance(item);) {
    const ValueList pair = to_list(heap, item);
    if (pair.size() != 2) fail("urlencode needs pairs");
    if (!out.empty()) out += '&';
    out += quote_url(str(heap, pair[0]), true) + "=" + quote_url(str(heap, pair[1]), true);
    heap.check_text(out.size());
  }
  return heap.string(std::move(out));
}

Value join_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("join", arguments, {"d", "attribute"});
  Heap& heap = run.heap();
  const std::string separator = given[0].is_missing() ? "" : str(heap, given[0]);
  Value items = input;
  if (!given[1].is_missing() && !given[1].is_none()) {
    items = run.apply_filter(Value::constant("map"), input,
                             {.positional = {}, .named = {{"attribute", given[1]}}});
  }
  std::string out;
  bool first = true;
  const auto walk = iterate(heap, items);
  for (Value item; walk->advance(item); first = false) {
    if (!first) {
      heap.check_text(out.size() + separator.size());
      heap.step_bytes(separator.size());
      out += separator;
    }
    append_str(heap, out, item);
  }
  return heap.string(std::move(out));
}

constexpr NamedFilter kTable[] = {
    {"capitalize", converted<capitalize>},
    {"center", center_filter},
    {"e", escape_filter},
    {"escape", escape_filter},
    {"forceescape", force_escape_filter},
    {"format", format_filter},
    {"indent", indent_filter},
    {"join", join_filter},
    {"lower", converted<to_lower>},
    {"replace", replace_filter},
    {"safe", safe_filter},
    {"string", string_filter},
    {"title", converted<title_words>},
    {"tojson", tojson_filter},
    {"trim", trim_filter},
    {"truncate", truncate_filter},
    {"upper", converted<to_upper>},
    {"urlencode", urlencode_filter},
    {"wordcount", wordcount_filter},
};

}  // namespace

FilterSpan text_filters() {
  return {std::begin(kTable), std::end(kTable)};
}

}  // namespace fathom::text::jinja
