#include "text/grammar/json_rules.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "text/tokenizer/utf8.h"

namespace fathom::text {
namespace {

const CodePoints kControls = {{0, 0x1F}};
const CodePoints kSurrogates = {{0xD800, 0xDFFF}};

// What may stand in a string as it is.
const CodePoints& plain_characters() {
  static const CodePoints set = complement({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}});
  return set;
}

struct Escape {
  char32_t character;
  const char* text;
};
constexpr Escape kEscapes[] = {{'"', "\\\""}, {'\\', "\\\\"}, {'/', "\\/"},  {'\b', "\\b"},
                               {'\f', "\\f"}, {'\n', "\\n"},  {'\r', "\\r"}, {'\t', "\\t"}};

std::string quoted(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

Fragment JsonRules::digits(int min, int max) {
  return builder_.repeat([&] { return builder_.byte_range('0', '9'); }, min, max);
}

Fragment JsonRules::blanks() {
  constexpr int kMaxIndentation = 40;
  return rule(&blanks_, "blanks", [&] {
    const Fragment line =
        builder_.sequence({builder_.literal("\n"),
                           builder_.repeat(
                               [&] {
                                 return builder_.choice({builder_.literal(" "), builder_.literal("\t")});
                               },
                               0, kMaxIndentation)});
    return builder_.optional(builder_.choice({builder_.literal(" "), line}));
  });
}

Fragment JsonRules::integer() {
  return rule(&integer_, "integer", [&] {
    return builder_.sequence(
        {builder_.optional(builder_.literal("-")),
         builder_.choice({builder_.literal("0"),
                          builder_.sequence({builder_.byte_range('1', '9'), digits(0, kMaxDigits - 1)})})});
  });
}

Fragment JsonRules::number() {
  return rule(&number_, "number", [&] {
    const Fragment fraction = builder_.sequence({builder_.literal("."), digits(1, kMaxDigits)});
    const Fragment sign = builder_.optional(builder_.choice({builder_.literal("+"), builder_.literal("-")}));
    const Fragment exponent = builder_.sequence(
        {builder_.choice({builder_.literal("e"), builder_.literal("E")}), sign, digits(1, 2)});
    return builder_.sequence({integer(), builder_.optional(fraction), builder_.optional(exponent)});
  });
}

// Half of a surrogate pair is no character. What stands as it is is no rule of its own: a token of many
// characters would otherwise leave it at each.
Fragment JsonRules::character() {
  const Fragment rest = rule(&escape_, "escape", [&] {
    std::vector<Fragment> escapes;
    for (const Escape& escape : kEscapes)
      escapes.push_back(builder_.literal(std::string_view(escape.text).substr(1)));
    const auto hex = [&] {
      return builder_.choice(
          {builder_.byte_range('0', '9'), builder_.byte_range('a', 'f'), builder_.byte_range('A', 'F')});
    };
    const Fragment other =
        builder_.sequence({builder_.choice({builder_.byte_range('0', '9'), builder_.byte_range('a', 'c'),
                                            builder_.byte_range('e', 'f'), builder_.byte_range('A', 'C'),
                                            builder_.byte_range('E', 'F')}),
                           hex()});
    const Fragment below = builder_.sequence(
        {builder_.choice({builder_.literal("d"), builder_.literal("D")}), builder_.byte_range('0', '7')});
    escapes.push_back(
        builder_.sequence({builder_.literal("u"), builder_.choice({other, below}), hex(), hex()}));
    return builder_.choice(std::move(escapes));
  });
  return builder_.choice(
      {builder_.characters(plain_characters()), builder_.sequence({builder_.literal("\\"), rest})});
}

Fragment JsonRules::character_of(const CodePoints& given) {
  const CodePoints set = intersect(given, complement(kSurrogates));
  std::vector<Fragment> ways = {builder_.characters(intersect(set, plain_characters()))};
  for (const Escape& escape : kEscapes) {
    if (!intersect(set, {{escape.character, escape.character}}).empty())
      ways.push_back(builder_.literal(escape.text));
  }
  for (const auto& [low, high] : intersect(set, kControls)) {
    for (char32_t c = low; c <= high; ++c)
      ways.push_back(builder_.literal(fmt::format("\\u{:04x}", static_cast<uint32_t>(c))));
  }
  return builder_.choice(std::move(ways));
}

Fragment JsonRules::string() {
  return rule(&string_, "string", [&] {
    return builder_.sequence({builder_.literal("\""), builder_.star(character()), builder_.literal("\"")});
  });
}

Fragment JsonRules::array() {
  return rule(&array_, "array", [&] {
    const auto element = [&] { return builder_.sequence({value(), blanks()}); };
    const Fragment more = builder_.star(builder_.sequence({builder_.literal(","), blanks(), element()}));
    return builder_.sequence({builder_.literal("["), blanks(),
                              builder_.optional(builder_.sequence({element(), more})),
                              builder_.literal("]")});
  });
}

Fragment JsonRules::object() {
  return rule(&object_, "object", [&] {
    const auto member = [&] {
      return builder_.sequence({string(), blanks(), builder_.literal(":"), blanks(), value(), blanks()});
    };
    const Fragment more = builder_.star(builder_.sequence({builder_.literal(","), blanks(), member()}));
    return builder_.sequence({builder_.literal("{"), blanks(),
                              builder_.optional(builder_.sequence({member(), more})), builder_.literal("}")});
  });
}

Fragment JsonRules::value() {
  if (value_ < 0) {
    value_ = builder_.declare_rule("value");  // before its body, which calls it
    builder_.define_rule(value_,
                         builder_.choice({object(), array(), string(), number(), builder_.literal("true"),
                                          builder_.literal("false"), builder_.literal("null")}));
  }
  return builder_.call(value_);
}

Fragment JsonRules::key(std::string_view name) {
  return builder_.sequence({builder_.literal(quoted(name)), blanks(), builder_.literal(":"), blanks()});
}

// `names` have the first `depth` characters in common, which are read. Without escapes, a key is written in
// one way only.
Fragment JsonRules::other_key_from(const std::vector<std::u32string>& names, size_t depth) {
  const auto rest = [&] {
    return rule(&plain_, "rest of a key", [&] {
      return builder_.sequence(
          {builder_.star(builder_.characters(plain_characters())), builder_.literal("\"")});
    });
  };
  std::map<char32_t, std::vector<std::u32string>> longer;
  bool is_name = false;
  for (const std::u32string& name : names) {
    if (name.size() == depth) {
      is_name = true;
    } else {
      longer[name[depth]].push_back(name);
    }
  }
  std::vector<Fragment> ways;
  if (!is_name) ways.push_back(builder_.literal("\""));
  CodePoints next;
  for (const auto& [c, below] : longer) {
    next.emplace_back(c, c);
    const CodePoints here = intersect({{c, c}}, plain_characters());
    if (!here.empty())
      ways.push_back(builder_.sequence({builder_.characters(here), other_key_from(below, depth + 1)}));
  }
  ways.push_back(builder_.sequence(
      {builder_.characters(intersect(complement(normalize(next)), plain_characters())), rest()}));
  return builder_.choice(std::move(ways));
}

Fragment JsonRules::other_key(const std::vector<std::string>& names) {
  std::vector<std::u32string> wide;
  for (const std::string& name : names) {
    const std::string valid = repair_utf8(name);
    std::u32string& out = wide.emplace_back();
    for (size_t i = 0; i < valid.size(); i += utf8_length(valid[i]))
      out += decode_utf8(valid.data() + i, utf8_length(valid[i]));
  }
  return builder_.sequence(
      {builder_.literal("\""), other_key_from(wide, 0), blanks(), builder_.literal(":"), blanks()});
}

}  // namespace fathom::text
