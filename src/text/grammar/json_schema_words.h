// What the files of JsonSchema share: which keywords there are, and how values compare.
#pragma once

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::text {

// Enforced somewhere.
inline constexpr std::string_view kEnforced[] = {"type",
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
// JSON Schema's own, OpenAPI's, and those of editors, form builders and other servers.
inline constexpr std::string_view kAnnotations[] = {"title",
                                                    "description",
                                                    "default",
                                                    "examples",
                                                    "example",
                                                    "deprecated",
                                                    "readOnly",
                                                    "writeOnly",
                                                    "$schema",
                                                    "$id",
                                                    "$comment",
                                                    "strict",
                                                    "contentMediaType",
                                                    "contentEncoding",
                                                    "contentSchema",
                                                    "discriminator",
                                                    "xml",
                                                    "externalDocs",
                                                    "propertyOrdering",
                                                    "propertyOrder",
                                                    "enumNames",
                                                    "enumDescriptions",
                                                    "enumTitles",
                                                    "tsType",
                                                    "tsEnumNames",
                                                    "markdownDescription",
                                                    "markdownEnumDescriptions",
                                                    "deprecationMessage",
                                                    "errorMessage",
                                                    "patternErrorMessage",
                                                    "defaultSnippets",
                                                    "doNotSuggest"};

inline bool is_in(std::string_view word, const auto& list) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

inline const nlohmann::ordered_json* get(const nlohmann::ordered_json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

// An annotation, or a keyword with a value that constrains nothing.
bool has_no_effect(std::string_view key, const nlohmann::ordered_json& value);
inline bool constrains(std::string_view key, const nlohmann::ordered_json& value) {
  return is_in(key, kEnforced) && key != "$defs" && key != "definitions" && !has_no_effect(key, value);
}

// Equal for values that JSON Schema holds equal: 1 and 1.0, and objects in any order.
std::string canonical(const nlohmann::ordered_json& value);

}  // namespace fathom::text
