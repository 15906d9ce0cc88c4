// json_schema.h: anyOf, oneOf, allOf, and what values tell branches apart.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <set>

#include "text/grammar/json_schema.h"
#include "text/grammar/json_schema_words.h"

namespace fathom::text {

std::string canonical(const nlohmann::ordered_json& value) {
  if (value.is_number_float()) {
    const auto number = value.get<double>();
    if (std::floor(number) == number && std::abs(number) < 1e15)
      return std::to_string(static_cast<int64_t>(number));
  }
  if (value.is_array()) {
    std::string text = "[";
    for (const nlohmann::ordered_json& element : value) text += canonical(element) + ",";
    return text + "]";
  }
  if (value.is_object()) {
    std::map<std::string, std::string> members;
    for (const auto& [key, member] : value.items()) members[key] = canonical(member);
    std::string text = "{";
    for (const auto& [key, member] : members) text += nlohmann::ordered_json(key).dump() + ":" + member + ",";
    return text + "}";
  }
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

namespace {

using Json = nlohmann::ordered_json;

// The values of const or enum, canonical and sorted; empty: there is neither.
std::vector<std::string> constants(const Json& schema) {
  std::vector<std::string> texts;
  if (!schema.is_object()) return texts;
  if (const Json* constant = get(schema, "const")) {
    texts.push_back(canonical(*constant));
  } else if (const Json* options = get(schema, "enum"); options != nullptr && options->is_array()) {
    for (const Json& option : *options) texts.push_back(canonical(option));
  }
  std::sort(texts.begin(), texts.end());
  return texts;
}

bool differ(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  if (a.empty() || b.empty()) return false;
  std::vector<std::string> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return both.empty();
}

}  // namespace

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

// What tells a branch of oneOf from others.
struct JsonSchema::Marks {
  unsigned kinds = 0;
  std::vector<std::string> values;
  std::map<std::string, std::vector<std::string>> members;  // constants of required ones
};

JsonSchema::Marks JsonSchema::marks(const Json& branch) const {
  const Json* at = &branch;
  for (int i = 0; i < 8 && at->is_object() && at->contains("$ref") && (*at)["$ref"].is_string(); ++i) {
    const Json* next = resolve((*at)["$ref"].get<std::string>());
    if (next == nullptr) break;
    at = next;
  }
  Marks marks;
  marks.kinds = kinds(*at, 0);
  marks.values = constants(*at);
  if (!at->is_object() || marks.kinds != kObject) return marks;
  const Json* properties = get(*at, "properties");
  const Json* required = get(*at, "required");
  if (properties == nullptr || !properties->is_object() || required == nullptr || !required->is_array())
    return marks;
  for (const Json& name : *required) {
    const auto member = name.is_string() ? properties->find(name.get<std::string>()) : properties->end();
    if (member != properties->end()) marks.members[name.get<std::string>()] = constants(*member);
  }
  return marks;
}

// Can no value be valid under both?
bool JsonSchema::apart(const Marks& a, const Marks& b) {
  if ((a.kinds & b.kinds) == 0 || differ(a.values, b.values)) return true;
  return std::any_of(a.members.begin(), a.members.end(), [&](const auto& member) {
    const auto other = b.members.find(member.first);
    return other != b.members.end() && differ(member.second, other->second);
  });
}

Fragment JsonSchema::any_of(const Json& schema, const char* keyword, const std::string& path) {
  for (const auto& [key, value] : schema.items()) {
    const bool same_kind = key == "type";  // often repeated beside the branches
    if (key == keyword || same_kind || !constrains(key, value)) continue;
    if (!best_effort_) {
      return fail(ErrorCode::kUnsupported, path + "/" + key,
                  fmt::format("is not enforced beside {}", keyword));
    }
    // The branches are often about what these list: which members are required, say.
    if (key == "properties" || key == "items" || key == "prefixItems") {
      Json rest = schema;
      rest.erase(keyword);
      return this->schema(rest, path);
    }
  }
  const Json& list = schema[keyword];
  if (!list.is_array() || list.empty() || list.size() > 256)
    return fail(ErrorCode::kInvalidArgument, path + "/" + keyword, "expected a list of 1 to 256 schemas");
  if (schema.contains("type") && !best_effort_) {
    for (const Json& one : list) {
      const Json type_alone = {{"type", schema["type"]}};
      if ((kinds(one, 0) & ~kinds(type_alone, 0)) != 0)
        return fail(ErrorCode::kUnsupported, path + "/type",
                    fmt::format("is not enforced beside {}: say it in each branch", keyword));
    }
  }
  if (std::string_view(keyword) == "oneOf" && !best_effort_) {
    std::vector<Marks> all;
    for (size_t i = 0; i < list.size(); ++i) {
      all.push_back(marks(list[i]));
      for (size_t k = 0; k < i; ++k) {
        if (!apart(all[i], all[k])) {
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

// One schema of all the parts, where no two of them say something about the same. With best effort the first
// of such parts is kept.
Fragment JsonSchema::all_of(const Json& schema, const std::string& path) {
  const Json& list = schema["allOf"];
  if (!list.is_array() || list.empty() || list.size() > 256)
    return fail(ErrorCode::kInvalidArgument, path + "/allOf", "expected a list of 1 to 256 schemas");
  // What references lead to is merged again at each place, so it could be endless.
  if (++merged_ > kMaxMerged)
    return fail(ErrorCode::kInvalidArgument, path + "/allOf",
                fmt::format("more than {} of them", kMaxMerged));
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
    if (!at->is_object() && best_effort_) continue;
    if (!at->is_object()) return fail(ErrorCode::kUnsupported, path + "/allOf", "only objects are merged");
    if (std::find(parts.begin(), parts.end(), at) != parts.end()) continue;
    check_keywords(*at, path + "/allOf");
    parts.push_back(at);
  }
  size_t with_members = 0;
  size_t with_items = 0;
  std::set<Json> required;
  for (const Json* part : parts) {
    with_members += part->contains("properties") || part->contains("additionalProperties") ? 1 : 0;
    with_items += part->contains("items") || part->contains("prefixItems") ? 1 : 0;
    for (const auto& [key, value] : part->items()) {
      if (has_no_effect(key, value) || key == "$defs" || key == "definitions") continue;
      if (key == "required" && value.is_array()) {
        Json& names = merged[key];
        if (names.is_null()) names = Json::array();
        for (const Json& name : value) {
          if (names.is_array() && required.insert(name).second) names.push_back(name);
        }
      } else if (!merged.contains(key)) {
        merged[key] = value;
      } else if (key == "properties" && value.is_object() && merged[key].is_object()) {
        if (value.size() + merged[key].size() > 2 * kMaxMembers)
          return fail(ErrorCode::kInvalidArgument, path + "/allOf/properties",
                      fmt::format("more than {}", kMaxMembers));
        for (const auto& [name, member] : value.items()) {
          if (!merged[key].contains(name)) {
            merged[key][name] = member;
          } else if (merged[key][name] != member && !best_effort_) {
            return fail(ErrorCode::kUnsupported, path + "/allOf",
                        fmt::format("two parts have the property '{}'", name));
          }
        }
      } else if (merged[key] != value && !best_effort_) {
        return fail(ErrorCode::kUnsupported, path + "/allOf", fmt::format("two parts have '{}'", key));
      }
    }
  }
  if (with_members > 1 && best_effort_) merged.erase("additionalProperties");
  if (with_members > 1 && merged.contains("additionalProperties"))
    return fail(ErrorCode::kUnsupported, path + "/allOf",
                "is not enforced with additionalProperties in a part");
  if (with_items > 1 && !best_effort_)
    return fail(ErrorCode::kUnsupported, path + "/allOf", "two parts say something about items");
  return this->schema(merged, path + "/allOf");
}

}  // namespace fathom::text
