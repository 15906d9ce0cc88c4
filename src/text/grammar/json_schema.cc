#include "text/grammar/json_schema.h"

#include <algorithm>
#include <cmath>

#include "text/grammar/json_schema_words.h"
#include "text/grammar/pattern.h"
#include "text/grammar/string_formats.h"

namespace fathom::text {
namespace {

using Json = nlohmann::ordered_json;

bool of_type(const Json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "integer") {
    return value.is_number_integer() ||
           (value.is_number() && std::floor(value.get<double>()) == value.get<double>());
  }
  return type == "number" && value.is_number();
}

// As Python's json.dumps writes it, which models are used to.
std::string spaced(const Json& value) {
  std::string text;
  if (value.is_object()) {
    for (const auto& [key, member] : value.items()) {
      text += (text.empty() ? "{" : ", ") + Json(key).dump(-1, ' ', false, Json::error_handler_t::replace) +
              ": " + spaced(member);
    }
    return text.empty() ? "{}" : text + "}";
  }
  if (value.is_array()) {
    for (const Json& element : value) text += (text.empty() ? "[" : ", ") + spaced(element);
    return text.empty() ? "[]" : text + "]";
  }
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

bool has_no_effect(std::string_view key, const Json& value) {
  if (is_in(key, kAnnotations) || key.starts_with("x-")) return true;
  if (key == "uniqueItems" || key == "nullable") return value == false;
  // JSON Schema takes formats of others as annotations.
  if (key == "format") return value.is_string() && !is_string_format(value.get<std::string>());
  if (key != "propertyNames") return false;
  if (value == true) return true;
  // Names are strings.
  return value.is_object() && std::all_of(value.items().begin(), value.items().end(), [](const auto& item) {
           return has_no_effect(item.key(), item.value()) ||
                  (item.key() == "type" && item.value() == "string");
         });
}

Fragment JsonSchema::fail(ErrorCode code, std::string path, std::string message) {
  if (!error_) error_ = Error{code, (path.empty() ? "schema" : path) + ": " + message};
  return builder_.empty();
}

Result<Fragment> JsonSchema::compile() {
  const Fragment whole = schema(root_, "");
  if (error_) return *error_;
  return whole;
}

void JsonSchema::check_keywords(const Json& schema, const std::string& path) {
  if (best_effort_) return;
  for (const auto& [key, value] : schema.items()) {
    // It would change what references within it mean.
    if (key == "$id" && &schema != &root_) {
      fail(ErrorCode::kUnsupported, path + "/$id", "is only read on the outermost schema");
      continue;
    }
    if (is_in(key, kEnforced) || has_no_effect(key, value)) continue;
    fail(ErrorCode::kUnsupported, path + "/" + key,
         "this keyword is not enforced by constrained output; leave it out, or say the same with others");
  }
}

int JsonSchema::count(const Json& schema, const char* keyword, int fallback, const std::string& path) {
  const Json* value = get(schema, keyword);
  if (value == nullptr) return fallback;
  if (value->is_number() && value->get<double>() >= 0 &&
      value->get<double>() <= GrammarBuilder::kMaxRepeats &&
      std::floor(value->get<double>()) == value->get<double>()) {
    return static_cast<int>(value->get<double>());
  }
  fail(ErrorCode::kInvalidArgument, path + "/" + keyword,
       fmt::format("got {}, expected a whole number from 0 to {}", value->dump(),
                   GrammarBuilder::kMaxRepeats));
  return fallback;
}

Fragment JsonSchema::schema(const Json& schema, const std::string& path) {
  if (error_) return builder_.empty();
  if (schema.is_boolean()) return schema.get<bool>() ? rules_.value() : builder_.characters({});
  if (!schema.is_object())
    return fail(ErrorCode::kInvalidArgument, path, "expected a schema: an object, true or false");
  if (++depth_ > kMaxDepth)
    return fail(ErrorCode::kInvalidArgument, path,
                fmt::format("schemas are nested deeper than {}", kMaxDepth));
  struct Leave {
    int& depth;
    ~Leave() { --depth; }
  } leave{depth_};
  check_keywords(schema, path);
  if (error_) return builder_.empty();
  if (schema.contains("$ref")) return reference(schema, path);
  if (schema.contains("enum") || schema.contains("const")) return values(schema, path);
  if (schema.contains("anyOf")) return any_of(schema, "anyOf", path);
  if (schema.contains("oneOf")) return any_of(schema, "oneOf", path);
  if (schema.contains("allOf")) return all_of(schema, path);
  const Json* type = get(schema, "type");
  if (type == nullptr) {
    // What the keywords are about; other types would be valid too.
    const auto any = [&](std::initializer_list<const char*> keys) {
      return std::any_of(keys.begin(), keys.end(), [&](const char* key) { return schema.contains(key); });
    };
    if (any({"properties", "required", "additionalProperties", "minProperties", "maxProperties"}))
      return object(schema, path);
    if (any({"items", "prefixItems", "minItems", "maxItems"})) return array(schema, path);
    if (any({"pattern", "minLength", "maxLength", "format"})) return string(schema, path);
    if (any({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}))
      return number(schema, false, path);
    return rules_.value();
  }
  if (type->is_string()) return typed(schema, type->get<std::string>(), path);
  if (!type->is_array() || type->empty())
    return fail(ErrorCode::kInvalidArgument, path + "/type", "expected a type's name, or a list of them");
  std::vector<Fragment> options;
  for (const Json& one : *type) {
    if (!one.is_string()) return fail(ErrorCode::kInvalidArgument, path + "/type", "expected names of types");
    options.push_back(typed(schema, one.get<std::string>(), path));
  }
  return builder_.choice(std::move(options));
}

Fragment JsonSchema::typed(const Json& schema, const std::string& type, const std::string& path) {
  if (type == "object") return object(schema, path);
  if (type == "array") return array(schema, path);
  if (type == "string") return string(schema, path);
  if (type == "number" || type == "integer") return number(schema, type == "integer", path);
  if (type == "boolean") return builder_.choice({builder_.literal("true"), builder_.literal("false")});
  if (type == "null") return builder_.literal("null");
  return fail(
      ErrorCode::kInvalidArgument, path + "/type",
      fmt::format("got '{}', expected object, array, string, number, integer, boolean or null", type));
}

Fragment JsonSchema::values(const Json& schema, const std::string& path) {
  for (const auto& [key, value] : schema.items()) {
    const bool beside = constrains(key, value) && key != "enum" && key != "const" && key != "type";
    if (beside && !best_effort_)
      return fail(ErrorCode::kUnsupported, path + "/" + key, "is not enforced beside enum or const");
  }
  Json list = Json::array();
  const Json* constant = get(schema, "const");
  const Json* options = get(schema, "enum");
  if (options != nullptr && (!options->is_array() || options->size() > 10000))
    return fail(ErrorCode::kInvalidArgument, path + "/enum", "expected a list of at most 10000 values");
  if (constant != nullptr) {
    const bool listed =
        options == nullptr || std::any_of(options->begin(), options->end(), [&](const Json& option) {
          return canonical(option) == canonical(*constant);
        });
    if (listed) list.push_back(*constant);
  } else {
    list = *options;
  }
  const Json* type = get(schema, "type");
  std::vector<std::string> texts;
  for (const Json& value : list) {
    bool fits = type == nullptr;
    if (type != nullptr && type->is_string()) fits = of_type(value, type->get<std::string>());
    if (type != nullptr && type->is_array()) {
      for (const Json& one : *type)
        fits = fits || (one.is_string() && of_type(value, one.get<std::string>()));
    }
    if (fits) texts.push_back(spaced(value));
  }
  if (texts.empty()) return fail(ErrorCode::kInvalidArgument, path, "no value of enum or const is allowed");
  return builder_.any_literal(texts);
}

const Json* JsonSchema::resolve(const std::string& pointer) const {
  if (pointer == "#") return &root_;
  if (!pointer.starts_with("#/")) return nullptr;
  const Json* at = &root_;
  size_t from = 2;
  for (;;) {
    const size_t end = std::min(pointer.find('/', from), pointer.size());
    std::string part;
    for (size_t i = from; i < end; ++i) {
      if (pointer[i] == '~' && i + 1 < end) {
        part += pointer[++i] == '1' ? '/' : '~';
      } else if (pointer[i] == '%' && i + 2 < end &&
                 std::isxdigit(static_cast<unsigned char>(pointer[i + 1])) &&
                 std::isxdigit(static_cast<unsigned char>(pointer[i + 2]))) {
        part += static_cast<char>(std::stoi(pointer.substr(i + 1, 2), nullptr, 16));
        i += 2;
      } else {
        part += pointer[i];
      }
    }
    if (at->is_object()) {
      const auto it = at->find(part);
      if (it == at->end()) return nullptr;
      at = &*it;
    } else if (at->is_array()) {
      const bool number = !part.empty() && part.size() < 6 &&
                          std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
      if (!number || std::stoul(part) >= at->size()) return nullptr;
      at = &(*at)[std::stoul(part)];
    } else {
      return nullptr;
    }
    if (end == pointer.size()) return at;
    from = end + 1;
  }
}

Fragment JsonSchema::reference(const Json& schema, const std::string& path) {
  for (const auto& [key, value] : schema.items()) {
    if (key != "$ref" && constrains(key, value) && !best_effort_)
      return fail(ErrorCode::kUnsupported, path + "/" + key, "is not enforced beside $ref");
  }
  const Json& pointer = schema["$ref"];
  if (!pointer.is_string()) return fail(ErrorCode::kInvalidArgument, path + "/$ref", "expected a string");
  const auto text = pointer.get<std::string>();
  const Json* target = resolve(text);
  if (target == nullptr) {
    if (best_effort_ && !text.starts_with("#/")) return rules_.value();  // elsewhere, or an anchor
    return fail(
        ErrorCode::kInvalidArgument, path + "/$ref",
        fmt::format("'{}' leads nowhere; references within the schema are read (\"#/$defs/...\")", text));
  }
  const auto [it, added] = references_.try_emplace(text, -1);
  if (!added) return builder_.call(it->second);
  if (++rules_made_ > kMaxRules)
    return fail(ErrorCode::kInvalidArgument, path, fmt::format("more than {} rules", kMaxRules));
  const int32_t rule = builder_.declare_rule(text);
  it->second = rule;
  const int depth = std::exchange(depth_, 0);  // a reference nests the rule, not the schema
  const Fragment body = this->schema(*target, text);
  depth_ = depth;
  builder_.define_rule(rule, body);
  return builder_.call(rule);
}

Fragment JsonSchema::string(const Json& schema, const std::string& path) {
  const Json* pattern = get(schema, "pattern");
  const Json* format = get(schema, "format");
  if (format != nullptr && has_no_effect("format", *format)) format = nullptr;
  const int min = count(schema, "minLength", 0, path);
  const int max = count(schema, "maxLength", -1, path);
  const bool counted = min > 0 || max >= 0;
  if (max >= 0 && max < min)
    return fail(ErrorCode::kInvalidArgument, path + "/maxLength", "is below minLength");
  if (!best_effort_ && (pattern != nullptr) + (format != nullptr) + counted > 1) {
    return fail(ErrorCode::kUnsupported, path + (pattern != nullptr ? "/pattern" : "/format"),
                "is not enforced beside another of pattern, format, minLength and maxLength");
  }
  for (const auto& [keyword, value] : {std::pair{"/pattern", pattern}, std::pair{"/format", format}}) {
    if (value != nullptr && !value->is_string())
      return fail(ErrorCode::kInvalidArgument, path + keyword, "expected a string");
  }
  const auto quote = [&](Fragment inside) {
    return builder_.sequence({builder_.literal("\""), inside, builder_.literal("\"")});
  };
  const auto matching = [&](const RegexPattern& regex, bool search) {
    const PatternEmitter emitter{builder_, [&](const CodePoints& set) { return rules_.character_of(set); },
                                 nullptr};
    return quote(emitter.emit(regex, search));
  };
  if (pattern != nullptr) {
    const Result<RegexPattern> regex = parse_regex(pattern->get<std::string>());
    if (regex.ok()) return matching(*regex, true);
    if (!best_effort_) return fail(ErrorCode::kInvalidArgument, path + "/pattern", regex.error().message);
  }
  if (format != nullptr) {
    const auto name = format->get<std::string>();
    const std::string known = string_format(name);
    if (!known.empty()) return matching(parse_regex(known).value(), false);
    if (!best_effort_)
      return fail(ErrorCode::kUnsupported, path + "/format",
                  fmt::format("'{}' is not enforced; the known ones are {}", name, string_format_names()));
  }
  if (counted) return quote(builder_.repeat([&] { return rules_.character(); }, min, max));
  return rules_.string();
}

Fragment JsonSchema::array(const Json& schema, const std::string& path) {
  Json prefix = Json::array();
  const Json* items = get(schema, "items");
  if (const Json* given = get(schema, "prefixItems")) prefix = *given;
  if (items != nullptr && items->is_array()) {  // older drafts
    prefix = *items;
    items = get(schema, "additionalItems");
  }
  if (!prefix.is_array() || prefix.size() > 256)
    return fail(ErrorCode::kInvalidArgument, path + "/prefixItems", "expected a list of at most 256 schemas");
  const int min = count(schema, "minItems", 0, path);
  int max = count(schema, "maxItems", -1, path);
  const auto fixed = static_cast<int>(prefix.size());
  if (items != nullptr && *items == false) max = max < 0 ? fixed : std::min(max, fixed);
  if (max >= 0 && max < min)
    return fail(ErrorCode::kInvalidArgument, path, "no list has minItems and maxItems elements");
  if (error_) return builder_.empty();
  const Fragment open = builder_.sequence({builder_.literal("["), rules_.blanks()});
  if (max == 0) return builder_.sequence({open, builder_.literal("]")});

  int32_t item_rule = -1;
  const auto element = [&](int index) {
    std::vector<Fragment> parts;
    if (index > 0) parts = {builder_.literal(","), rules_.blanks()};
    if (index < fixed) {
      parts.push_back(
          this->schema(prefix[static_cast<size_t>(index)], fmt::format("{}/prefixItems/{}", path, index)));
    } else if (items == nullptr) {
      parts.push_back(rules_.value());
    } else {
      if (item_rule < 0) {
        item_rule = builder_.declare_rule(path + "/items");
        builder_.define_rule(item_rule, this->schema(*items, path + "/items"));
      }
      parts.push_back(builder_.call(item_rule));
    }
    parts.push_back(rules_.blanks());
    return builder_.sequence(std::move(parts));
  };
  // The first elements one by one, each of which may be the last; then those that are alike.
  const int single = std::min(std::max(fixed, 1), max < 0 ? std::max(fixed, 1) : max);
  const Fragment close = builder_.literal("]");
  std::vector<Fragment> elements;
  for (int i = 0; i < single; ++i) elements.push_back(element(i));
  Fragment rest = builder_.empty();
  if (max < 0 || max > single) {
    rest = builder_.repeat([&] { return element(single); }, std::max(0, min - single),
                           max < 0 ? -1 : max - single);
  }
  for (int i = single; i-- > 0;) {
    rest = builder_.sequence({elements[static_cast<size_t>(i)], rest});
    if (i >= min) rest = builder_.optional(rest);
  }
  return builder_.sequence({open, rest, close});
}

Fragment JsonSchema::object(const Json& schema, const std::string& path) {
  static const Json kNone = Json::object();
  const Json* given = get(schema, "properties");
  const Json& properties = given == nullptr ? kNone : *given;
  const Json* more = get(schema, "additionalProperties");
  if (!properties.is_object())
    return fail(ErrorCode::kInvalidArgument, path + "/properties", "expected an object of schemas");
  std::vector<std::string> names;
  for (const auto& [name, unused] : properties.items()) names.push_back(name);
  std::vector<std::string> required;
  if (const Json* list = get(schema, "required")) {
    if (!list->is_array())
      return fail(ErrorCode::kInvalidArgument, path + "/required", "expected a list of names");
    for (const Json& name : *list) {
      if (!name.is_string())
        return fail(ErrorCode::kInvalidArgument, path + "/required", "expected a list of names");
      required.push_back(name.get<std::string>());
      if (!is_in(required.back(), names)) names.push_back(required.back());
    }
  }
  std::sort(required.begin(), required.end());
  required.erase(std::unique(required.begin(), required.end()), required.end());
  // What additionalProperties says is not of the members that these are about.
  static const Json kAnything = true;
  if (schema.contains("patternProperties")) more = &kAnything;  // only where that is dropped
  const bool open = more != nullptr ? *more != false : given == nullptr && required.empty();
  const int min = count(schema, "minProperties", 0, path);
  const int max = count(schema, "maxProperties", -1, path);
  if (!best_effort_ && min > static_cast<int>(required.size()))
    return fail(ErrorCode::kUnsupported, path + "/minProperties",
                "is only enforced by as many required properties");
  if (!best_effort_ && max >= 0 && (open || max < static_cast<int>(names.size())))
    return fail(ErrorCode::kUnsupported, path + "/maxProperties",
                "is only enforced where no more are listed");
  constexpr size_t kMaxName = 1024;
  if (std::any_of(names.begin(), names.end(),
                  [](const std::string& name) { return name.size() > kMaxName; })) {
    return fail(ErrorCode::kInvalidArgument, path + "/properties",
                fmt::format("a name of more than {} bytes", kMaxName));
  }
  if (names.size() > kMaxMembers)
    return fail(ErrorCode::kInvalidArgument, path + "/properties", fmt::format("more than {}", kMaxMembers));
  if (error_) return builder_.empty();
  if (names.empty() && open && (more == nullptr || *more == true)) return rules_.object();

  // Each member is a rule, called where it comes first and where it comes after others.
  const auto member = [&](const std::string& name) {
    const int32_t rule = builder_.declare_rule(path + "/" + name);
    const Json* own = get(properties, name.c_str());
    const Json any = true;
    const Json& value = own != nullptr ? *own : more != nullptr ? *more : any;
    builder_.define_rule(
        rule, builder_.sequence(
                  {rules_.key(name), this->schema(value, path + "/properties/" + name), rules_.blanks()}));
    return rule;
  };
  const auto comma = [&] { return builder_.sequence({builder_.literal(","), rules_.blanks()}); };
  // `first`: nothing has been written; `later`: something has. Fragments that end in those states.
  Fragment first = builder_.empty();
  std::optional<Fragment> later;
  bool first_possible = true;
  for (const std::string& name : names) {
    if (error_) return builder_.empty();
    const int32_t rule = member(name);
    const bool needed = is_in(name, required);
    std::vector<Fragment> now;
    if (later) {
      const Fragment next = builder_.sequence({comma(), builder_.call(rule)});
      now.push_back(builder_.sequence({*later, needed ? next : builder_.optional(next)}));
    }
    if (first_possible) {
      // `first` is the empty text until here: a copy of it is another empty text.
      now.push_back(builder_.call(rule));
      if (needed) first_possible = false;
    }
    later = builder_.choice(std::move(now));
  }
  if (open) {
    const int32_t rule = builder_.declare_rule(path + "/additionalProperties");
    const Fragment value =
        more == nullptr ? rules_.value() : this->schema(*more, path + "/additionalProperties");
    builder_.define_rule(rule, builder_.sequence({rules_.other_key(names), value, rules_.blanks()}));
    const auto extra = [&] { return builder_.star(builder_.sequence({comma(), builder_.call(rule)})); };
    std::vector<Fragment> now;
    if (later) now.push_back(builder_.sequence({*later, extra()}));
    if (first_possible) now.push_back(builder_.sequence({builder_.call(rule), extra()}));
    later = builder_.choice(std::move(now));
  }
  std::vector<Fragment> bodies;
  if (later) bodies.push_back(*later);
  if (first_possible) bodies.push_back(first);
  return builder_.sequence(
      {builder_.literal("{"), rules_.blanks(), builder_.choice(std::move(bodies)), builder_.literal("}")});
}

}  // namespace fathom::text
