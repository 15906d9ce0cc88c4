#include "text/grammar/json_schema.h"

#include <algorithm>
#include <cmath>

#include "text/grammar/number_range.h"
#include "text/grammar/pattern.h"
#include "text/grammar/string_formats.h"

namespace fathom::text {
namespace {

using Json = nlohmann::ordered_json;

// Enforced somewhere, or annotations without effect.
constexpr std::string_view kEnforced[] = {"type",
                                          "enum",
                                          "const",
                                          "anyOf",
                                          "oneOf",
                                          "allOf",
                                          "$ref",
                                          "properties",
                                          "required",
                                          "additionalProperties",
                                          "minProperties",
                                          "maxProperties",
                                          "items",
                                          "prefixItems",
                                          "additionalItems",
                                          "minItems",
                                          "maxItems",
                                          "minLength",
                                          "maxLength",
                                          "pattern",
                                          "format",
                                          "minimum",
                                          "maximum",
                                          "exclusiveMinimum",
                                          "exclusiveMaximum",
                                          "$defs",
                                          "definitions"};
constexpr std::string_view kAnnotations[] = {
    "title",     "description", "default", "examples", "example", "deprecated",       "readOnly",
    "writeOnly", "$schema",     "$id",     "$comment", "strict",  "contentMediaType", "contentEncoding"};

bool is_in(std::string_view word, const auto& list) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

const Json* get(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

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

// A bound of a number; nothing when it has too many digits.
std::optional<Decimal> to_decimal(const Json& value) {
  Decimal out;
  std::string text = value.dump();
  const bool negative = text[0] == '-';
  int exponent = 0;
  if (const size_t e = text.find('e'); e != std::string::npos) {
    exponent = std::stoi(text.substr(e + 1));
    text.resize(e);
  }
  int digits = 0;
  bool fraction = false;
  for (char c : text) {
    if (c == '.') fraction = true;
    if (c < '0' || c > '9') continue;
    if (++digits > 18) return std::nullopt;
    out.value = out.value * 10 + (c - '0');
    if (fraction) ++out.decimals;
  }
  for (; exponent > 0; --exponent) {
    if (out.decimals > 0) {
      --out.decimals;
    } else if (++digits > 18) {
      return std::nullopt;
    } else {
      out.value *= 10;
    }
  }
  out.decimals -= exponent;
  while (out.decimals > 0 && out.value % 10 == 0) {
    out.value /= 10;
    --out.decimals;
  }
  if (out.decimals > kMaxDecimals - 2) return std::nullopt;
  if (negative) out.value = -out.value;
  return out;
}

// A little above (or, with -1, below) the bound.
Decimal beside(Decimal bound, int direction, bool integer) {
  if (integer && bound.decimals > 0) return bound;  // no integer itself
  if (!integer) {
    bound.value *= 100;
    bound.decimals += 2;
  }
  bound.value += direction;
  return bound;
}

}  // namespace

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
  for (const auto& [key, value] : schema.items()) {
    if (is_in(key, kEnforced) || is_in(key, kAnnotations) || key.starts_with("x-")) continue;
    if (key == "uniqueItems" && value == false) continue;
    if (key == "nullable" && value == false) continue;
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
    const bool beside = is_in(key, kEnforced) && key != "enum" && key != "const" && key != "type" &&
                        key != "$defs" && key != "definitions";
    if (beside)
      return fail(ErrorCode::kUnsupported, path + "/" + key, "is not enforced beside enum or const");
  }
  Json list = Json::array();
  const Json* constant = get(schema, "const");
  const Json* options = get(schema, "enum");
  if (options != nullptr && (!options->is_array() || options->size() > 10000))
    return fail(ErrorCode::kInvalidArgument, path + "/enum", "expected a list of at most 10000 values");
  if (constant != nullptr) {
    const bool listed =
        options == nullptr || std::find(options->begin(), options->end(), *constant) != options->end();
    if (listed) list.push_back(*constant);
  } else {
    list = *options;
  }
  const Json* type = get(schema, "type");
  std::vector<Fragment> texts;
  for (const Json& value : list) {
    bool fits = type == nullptr;
    if (type != nullptr && type->is_string()) fits = of_type(value, type->get<std::string>());
    if (type != nullptr && type->is_array()) {
      for (const Json& one : *type)
        fits = fits || (one.is_string() && of_type(value, one.get<std::string>()));
    }
    if (fits) texts.push_back(builder_.literal(spaced(value)));
  }
  if (texts.empty()) return fail(ErrorCode::kInvalidArgument, path, "no value of enum or const is allowed");
  return builder_.choice(std::move(texts));
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
    if (key != "$ref" && key != "$defs" && key != "definitions" && is_in(key, kEnforced))
      return fail(ErrorCode::kUnsupported, path + "/" + key, "is not enforced beside $ref");
  }
  const Json& pointer = schema["$ref"];
  if (!pointer.is_string()) return fail(ErrorCode::kInvalidArgument, path + "/$ref", "expected a string");
  const auto text = pointer.get<std::string>();
  const auto [it, added] = references_.try_emplace(text, -1);
  if (!added) return builder_.call(it->second);
  const Json* target = resolve(text);
  if (target == nullptr) {
    return fail(
        ErrorCode::kInvalidArgument, path + "/$ref",
        fmt::format("'{}' leads nowhere; references within the schema are read (\"#/$defs/...\")", text));
  }
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

unsigned JsonSchema::kinds(const Json& schema, int depth) const {
  if (!schema.is_object() || depth > 8) return kAny;
  if (const Json* ref = get(schema, "$ref"); ref != nullptr && ref->is_string()) {
    const Json* target = resolve(ref->get<std::string>());
    return target == nullptr ? unsigned{kAny} : kinds(*target, depth + 1);
  }
  const auto of = [](const Json& value) -> unsigned {
    if (value.is_object()) return kObject;
    if (value.is_array()) return kArray;
    if (value.is_string()) return kString;
    if (value.is_number()) return kNumber;
    return value.is_boolean() ? kBoolean : kNull;
  };
  if (const Json* constant = get(schema, "const")) return of(*constant);
  unsigned found = 0;
  for (const char* keyword : {"anyOf", "oneOf"}) {
    const Json* list = get(schema, keyword);
    if (list == nullptr || !list->is_array()) continue;
    for (const Json& one : *list) found |= kinds(one, depth + 1);
    return found;
  }
  if (const Json* list = get(schema, "enum"); list != nullptr && list->is_array()) {
    for (const Json& one : *list) found |= of(one);
    return found;
  }
  const auto named = [](const std::string& name) -> unsigned {
    if (name == "object") return kObject;
    if (name == "array") return kArray;
    if (name == "string") return kString;
    if (name == "number" || name == "integer") return kNumber;
    return name == "boolean" ? kBoolean : name == "null" ? kNull : kAny;
  };
  const Json* type = get(schema, "type");
  if (type == nullptr) return kAny;
  if (type->is_string()) return named(type->get<std::string>());
  for (const Json& one : *type) found |= one.is_string() ? named(one.get<std::string>()) : unsigned{kAny};
  return found;
}

// Can no value be valid under both?
bool JsonSchema::apart(const Json& first, const Json& second) const {
  if ((kinds(first, 0) & kinds(second, 0)) == 0) return true;
  const auto target = [&](const Json& schema) -> const Json& {
    const Json* at = &schema;
    for (int i = 0; i < 8 && at->is_object() && at->contains("$ref") && (*at)["$ref"].is_string(); ++i) {
      const Json* next = resolve((*at)["$ref"].get<std::string>());
      if (next == nullptr) break;
      at = next;
    }
    return *at;
  };
  const auto constants = [](const Json& schema) {
    Json list = Json::array();
    if (!schema.is_object()) return list;
    if (const Json* constant = get(schema, "const")) {
      list.push_back(*constant);
    } else if (const Json* options = get(schema, "enum"); options != nullptr && options->is_array()) {
      list = *options;
    }
    return list;
  };
  const auto differ = [](const Json& a, const Json& b) {
    if (a.empty() || b.empty()) return false;
    return std::none_of(a.begin(), a.end(),
                        [&](const Json& value) { return std::find(b.begin(), b.end(), value) != b.end(); });
  };
  const Json& a = target(first);
  const Json& b = target(second);
  if (!a.is_object() || !b.is_object()) return false;
  if (differ(constants(a), constants(b))) return true;
  // Objects told apart by a member that both must have.
  const Json* mine = get(a, "properties");
  const Json* others = get(b, "properties");
  if (mine == nullptr || others == nullptr || kinds(a, 0) != kObject || kinds(b, 0) != kObject) return false;
  const auto required = [](const Json& schema, const std::string& name) {
    const Json* list = get(schema, "required");
    return list != nullptr && list->is_array() && std::find(list->begin(), list->end(), name) != list->end();
  };
  for (const auto& [name, schema] : mine->items()) {
    const Json* other = get(*others, name.c_str());
    if (other != nullptr && required(a, name) && required(b, name) &&
        differ(constants(schema), constants(*other)))
      return true;
  }
  return false;
}

Fragment JsonSchema::any_of(const Json& schema, const char* keyword, const std::string& path) {
  for (const auto& [key, value] : schema.items()) {
    const bool same_kind = key == "type";  // often repeated beside the branches
    if (key != keyword && !same_kind && key != "$defs" && key != "definitions" && is_in(key, kEnforced)) {
      return fail(ErrorCode::kUnsupported, path + "/" + key,
                  fmt::format("is not enforced beside {}", keyword));
    }
  }
  const Json& list = schema[keyword];
  if (!list.is_array() || list.empty() || list.size() > 256)
    return fail(ErrorCode::kInvalidArgument, path + "/" + keyword, "expected a list of 1 to 256 schemas");
  if (schema.contains("type")) {
    for (const Json& one : list) {
      const Json type_alone = {{"type", schema["type"]}};
      if ((kinds(one, 0) & ~kinds(type_alone, 0)) != 0)
        return fail(ErrorCode::kUnsupported, path + "/type",
                    fmt::format("is not enforced beside {}: say it in each branch", keyword));
    }
  }
  if (std::string_view(keyword) == "oneOf") {
    for (size_t i = 0; i < list.size(); ++i) {
      for (size_t k = 0; k < i; ++k) {
        if (!apart(list[i], list[k])) {
          return fail(
              ErrorCode::kUnsupported, path + "/oneOf",
              fmt::format("values may be valid under both {} and {}; use anyOf, or a required member with "
                          "a const in each",
                          k, i));
        }
      }
    }
  }
  std::vector<Fragment> options;
  for (size_t i = 0; i < list.size(); ++i)
    options.push_back(this->schema(list[i], fmt::format("{}/{}/{}", path, keyword, i)));
  return builder_.choice(std::move(options));
}

// One schema of all the parts, where no two of them say something about the same.
Fragment JsonSchema::all_of(const Json& schema, const std::string& path) {
  const Json& list = schema["allOf"];
  if (!list.is_array() || list.empty())
    return fail(ErrorCode::kInvalidArgument, path + "/allOf", "expected a list of schemas");
  Json merged = Json::object();
  std::vector<const Json*> parts;
  Json own = schema;
  own.erase("allOf");
  parts.push_back(&own);
  for (const Json& one : list) {
    const Json* at = &one;
    for (int i = 0;
         i < 8 && at->is_object() && at->size() == 1 && at->contains("$ref") && (*at)["$ref"].is_string();
         ++i) {
      const Json* next = resolve((*at)["$ref"].get<std::string>());
      if (next == nullptr) break;
      at = next;
    }
    if (!at->is_object()) return fail(ErrorCode::kUnsupported, path + "/allOf", "only objects are merged");
    parts.push_back(at);
  }
  size_t with_members = 0;
  for (const Json* part : parts) {
    with_members += part->contains("properties") || part->contains("additionalProperties") ? 1 : 0;
    for (const auto& [key, value] : part->items()) {
      if (is_in(key, kAnnotations) || key == "$defs" || key == "definitions") continue;
      if (!merged.contains(key)) {
        merged[key] = value;
      } else if (key == "properties" && value.is_object() && merged[key].is_object()) {
        for (const auto& [name, member] : value.items()) {
          if (merged[key].contains(name) && merged[key][name] != member)
            return fail(ErrorCode::kUnsupported, path + "/allOf",
                        fmt::format("two parts have the property '{}'", name));
          merged[key][name] = member;
        }
      } else if (key == "required" && value.is_array() && merged[key].is_array()) {
        for (const Json& name : value) merged[key].push_back(name);
      } else if (merged[key] != value) {
        return fail(ErrorCode::kUnsupported, path + "/allOf", fmt::format("two parts have '{}'", key));
      }
    }
  }
  if (with_members > 1 && merged.contains("additionalProperties"))
    return fail(ErrorCode::kUnsupported, path + "/allOf",
                "is not enforced with additionalProperties in a part");
  return this->schema(merged, path + "/allOf");
}

Fragment JsonSchema::string(const Json& schema, const std::string& path) {
  const Json* pattern = get(schema, "pattern");
  const Json* format = get(schema, "format");
  const int min = count(schema, "minLength", 0, path);
  const int max = count(schema, "maxLength", -1, path);
  const bool counted = min > 0 || max >= 0;
  if (max >= 0 && max < min)
    return fail(ErrorCode::kInvalidArgument, path + "/maxLength", "is below minLength");
  if ((pattern != nullptr) + (format != nullptr) + counted > 1) {
    return fail(ErrorCode::kUnsupported, path + (pattern != nullptr ? "/pattern" : "/format"),
                "is not enforced beside another of pattern, format, minLength and maxLength");
  }
  const auto quote = [&](Fragment inside) {
    return builder_.sequence({builder_.literal("\""), inside, builder_.literal("\"")});
  };
  std::string text;
  if (format != nullptr) {
    if (!format->is_string()) return fail(ErrorCode::kInvalidArgument, path + "/format", "expected a string");
    text = string_format(format->get<std::string>());
    if (text.empty())
      return fail(ErrorCode::kUnsupported, path + "/format",
                  fmt::format("'{}' is not enforced; the known ones are {}", format->get<std::string>(),
                              string_format_names()));
  } else if (pattern != nullptr) {
    if (!pattern->is_string())
      return fail(ErrorCode::kInvalidArgument, path + "/pattern", "expected a string");
    text = pattern->get<std::string>();
  } else if (counted) {
    return quote(builder_.repeat([&] { return rules_.character(); }, min, max));
  } else {
    return rules_.string();
  }
  const Result<RegexPattern> regex = parse_regex(text);
  if (!regex.ok()) return fail(ErrorCode::kInvalidArgument, path + "/pattern", regex.error().message);
  const PatternEmitter emitter{builder_, [&](const CodePoints& set) { return rules_.character_of(set); },
                               nullptr};
  return quote(emitter.emit(*regex, format == nullptr));
}

Fragment JsonSchema::number(const Json& schema, bool integer, const std::string& path) {
  NumberRange range;
  bool bounded = false;
  for (const auto& [keyword, low, exclusive] :
       {std::tuple{"minimum", true, false}, std::tuple{"exclusiveMinimum", true, true},
        std::tuple{"maximum", false, false}, std::tuple{"exclusiveMaximum", false, true}}) {
    const Json* value = get(schema, keyword);
    if (value == nullptr) continue;
    const std::optional<Decimal> bound = value->is_number() ? to_decimal(*value) : std::nullopt;
    if (!bound)
      return fail(ErrorCode::kUnsupported, path + "/" + keyword,
                  fmt::format("got {}, expected a number of at most 18 digits and {} decimals", value->dump(),
                              kMaxDecimals - 2));
    const Decimal inclusive = exclusive ? beside(*bound, low ? 1 : -1, integer) : *bound;
    std::optional<Decimal>& side = low ? range.low : range.high;
    if (side)
      return fail(ErrorCode::kUnsupported, path + "/" + keyword, "two bounds on one side are not enforced");
    side = inclusive;
    bounded = true;
  }
  if (!bounded) return integer ? rules_.integer() : rules_.number();
  return integer ? integers_in(builder_, range) : numbers_in(builder_, range);
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
  const bool open = more != nullptr ? *more != false : given == nullptr && required.empty();
  const int min = count(schema, "minProperties", 0, path);
  const int max = count(schema, "maxProperties", -1, path);
  if (min > static_cast<int>(required.size()))
    return fail(ErrorCode::kUnsupported, path + "/minProperties",
                "is only enforced by as many required properties");
  if (max >= 0 && (open || max < static_cast<int>(names.size())))
    return fail(ErrorCode::kUnsupported, path + "/maxProperties",
                "is only enforced where no more are listed");
  constexpr size_t kMaxName = 1024;
  if (std::any_of(names.begin(), names.end(),
                  [](const std::string& name) { return name.size() > kMaxName; })) {
    return fail(ErrorCode::kInvalidArgument, path + "/properties",
                fmt::format("a name of more than {} bytes", kMaxName));
  }
  if (names.size() > 1000) return fail(ErrorCode::kInvalidArgument, path + "/properties", "more than 1000");
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
