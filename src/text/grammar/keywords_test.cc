// docs/structured-output.md says which keywords of JSON Schema are enforced, have no effect, and are refused:
// this holds the page and the code together. And JSON Schema's official suite, where there is a copy of it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "text/grammar/grammar.h"
#include "text/grammar/testing.h"

namespace fathom::text {
namespace {

using nlohmann::ordered_json;

// The keywords in the first column of the page's table whose head begins with `title`.
std::set<std::string> listed(const std::string& title) {
  std::ifstream page(FATHOM_SOURCE_DIR "/docs/structured-output.md");
  std::set<std::string> names;
  bool inside = false;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("| " + title)) inside = true;
    if (!line.starts_with("|")) inside = false;
    if (!inside) continue;
    const std::string cell = line.substr(0, line.find('|', 1));
    for (size_t at = cell.find('`'); at != std::string::npos; at = cell.find('`', at)) {
      const size_t end = cell.find('`', at + 1);
      names.insert(cell.substr(at + 1, end - at - 1));
      at = end + 1;
    }
  }
  return names;
}

struct Case {
  const char* schema;
  const char* good;
  const char* bad;  // null: the keyword is a container
};

TEST(Keywords, TheEnforcedOnesAreEnforced) {
  const std::map<std::string, Case> cases = {
      {"type", {R"({"type": "null"})", "null", "1"}},
      {"enum", {R"({"enum": [1, "a"]})", "1", "2"}},
      {"const", {R"({"const": {"a": 1}})", R"({"a": 1})", R"({"a": 2})"}},
      {"anyOf", {R"({"anyOf": [{"type": "null"}, {"type": "boolean"}]})", "true", "1"}},
      {"oneOf", {R"({"oneOf": [{"type": "null"}, {"const": 3}]})", "3", "4"}},
      {"allOf", {R"({"allOf": [{"type": "integer"}, {"minimum": 3}]})", "3", "2"}},
      {"$ref", {R"({"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}})", "null", "1"}},
      {"$defs", {R"({"$defs": {"a": false}})", "1", nullptr}},
      {"definitions", {R"({"$ref": "#/definitions/a", "definitions": {"a": {"const": 1}}})", "1", "2"}},
      {"properties", {R"({"properties": {"a": {"const": 1}}})", R"({"a": 1})", R"({"a": 2})"}},
      {"required", {R"({"properties": {"a": {"const": 1}}, "required": ["a"]})", R"({"a": 1})", "{}"}},
      {"additionalProperties", {R"({"additionalProperties": {"const": 1}})", R"({"x": 1})", R"({"x": 2})"}},
      {"minProperties", {R"({"required": ["a"], "minProperties": 1})", R"({"a": 1})", "{}"}},
      {"maxProperties",
       {R"({"properties": {"a": true}, "additionalProperties": false, "maxProperties": 1})", R"({"a": 1})",
        R"({"a": 1, "b": 1})"}},
      {"items", {R"({"items": {"const": 1}})", "[1, 1]", "[2]"}},
      {"prefixItems", {R"({"prefixItems": [{"const": 1}]})", "[1, 5]", "[2]"}},
      {"additionalItems",
       {R"({"items": [{"const": 1}], "additionalItems": {"const": 2}})", "[1, 2]", "[1, 1]"}},
      {"minItems", {R"({"minItems": 2})", "[1, 1]", "[1]"}},
      {"maxItems", {R"({"maxItems": 2})", "[1, 1]", "[1, 1, 1]"}},
      {"minLength", {R"({"minLength": 2})", R"("ab")", R"("a")"}},
      {"maxLength", {R"({"maxLength": 2})", R"("ab")", R"("abc")"}},
      {"pattern", {R"({"pattern": "^a+$"})", R"("aa")", R"("ab")"}},
      {"format", {R"({"format": "ipv4"})", R"("1.2.3.4")", R"("1.2.3.400")"}},
      {"minimum", {R"({"minimum": 2})", "2", "1.9"}},
      {"maximum", {R"({"maximum": 2})", "2", "2.1"}},
      {"exclusiveMinimum", {R"({"exclusiveMinimum": 2})", "2.5", "2"}},
      {"exclusiveMaximum", {R"({"exclusiveMaximum": 2})", "1.5", "2"}}};
  std::set<std::string> names;
  for (const auto& [name, one] : cases) {
    names.insert(name);
    const Automaton automaton = schema(one.schema);
    EXPECT_TRUE(matches(automaton, one.good)) << one.schema;
    if (one.bad != nullptr) {
      EXPECT_FALSE(matches(automaton, one.bad)) << one.schema;
    }
  }
  EXPECT_EQ(listed("Enforced"), names);
}

TEST(Keywords, AnnotationsHaveNoEffect) {
  std::set<std::string> names = listed("No effect");
  EXPECT_GE(names.size(), 10U);
  names.insert("x-anything");
  names.erase("x-...");
  for (const std::string& name : names) {
    const auto automaton = json_schema_grammar({{"type", "null"}, {name, "text"}});
    ASSERT_TRUE(automaton.ok()) << automaton.error().message;
    EXPECT_TRUE(matches(*automaton, "null"));
  }
}

TEST(Keywords, TheRefusedOnesAreRefusedByName) {
  const std::set<std::string> names = listed("Refused");
  for (const std::string& name : names) {
    const ordered_json value = name == "uniqueItems" ? ordered_json(true) : ordered_json("text");
    const auto refused = json_schema_grammar({{"properties", {{"a", {{name, value}}}}}});
    ASSERT_FALSE(refused.ok()) << name;
    EXPECT_NE(refused.error().message.find("/properties/a/" + name + ":"), std::string::npos)
        << refused.error().message;
    EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  }
  // Every keyword of draft 2020-12 is somewhere on the page.
  std::set<std::string> all = listed("Enforced");
  all.insert(names.begin(), names.end());
  all.merge(listed("No effect"));
  for (const char* keyword : {"$id",
                              "$schema",
                              "$ref",
                              "$anchor",
                              "$dynamicRef",
                              "$dynamicAnchor",
                              "$vocabulary",
                              "$comment",
                              "$defs",
                              "prefixItems",
                              "items",
                              "contains",
                              "additionalProperties",
                              "properties",
                              "patternProperties",
                              "dependentSchemas",
                              "propertyNames",
                              "if",
                              "then",
                              "else",
                              "allOf",
                              "anyOf",
                              "oneOf",
                              "not",
                              "unevaluatedItems",
                              "unevaluatedProperties",
                              "type",
                              "const",
                              "enum",
                              "multipleOf",
                              "maximum",
                              "exclusiveMaximum",
                              "minimum",
                              "exclusiveMinimum",
                              "maxLength",
                              "minLength",
                              "pattern",
                              "maxItems",
                              "minItems",
                              "uniqueItems",
                              "maxContains",
                              "minContains",
                              "maxProperties",
                              "minProperties",
                              "required",
                              "dependentRequired",
                              "title",
                              "description",
                              "default",
                              "deprecated",
                              "readOnly",
                              "writeOnly",
                              "examples",
                              "format",
                              "contentEncoding",
                              "contentMediaType",
                              "contentSchema"}) {
    EXPECT_TRUE(all.contains(keyword)) << keyword;
  }
}

// FATHOM_SCHEMA_SUITE: the folder with the suite's files for draft 2020-12 (tests/schema_suite_test.py).
TEST(SchemaSuite, NothingInvalidIsLetThrough) {
  const char* folder = std::getenv("FATHOM_SCHEMA_SUITE");
  if (folder == nullptr) GTEST_SKIP() << "tests/schema_suite_test.py runs this";
  size_t groups = 0, refused = 0, invalid = 0, valid = 0, read = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    std::ifstream file(entry.path());
    for (const ordered_json& group : ordered_json::parse(file)) {
      ++groups;
      const auto automaton = json_schema_grammar(group["schema"]);
      if (!automaton.ok()) {
        ++refused;
        EXPECT_FALSE(automaton.error().message.empty());
        continue;
      }
      for (const ordered_json& test : group["tests"]) {
        const bool is_read = matches(*automaton, test["data"].dump());
        if (test["valid"] == true) {
          ++valid;
          read += is_read ? 1 : 0;
        } else {
          ++invalid;
          EXPECT_FALSE(is_read) << entry.path().filename() << ": " << group["description"] << ": "
                                << test["description"] << "\n"
                                << group["schema"] << "\n"
                                << test["data"];
        }
      }
    }
  }
  EXPECT_GT(invalid, 300U);
  std::printf(
      "%zu schemas, %zu refused; of the others %zu invalid instances, none let through, and %zu of %zu valid "
      "ones "
      "let through\n",
      groups, refused, invalid, read, valid);
}

}  // namespace
}  // namespace fathom::text
