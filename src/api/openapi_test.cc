// GET /openapi.json: every route, and every field that the readers of requests read.
#include "api/openapi.h"

#include <set>

#include "api/fixture.h"
#include "api/routes.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

ordered_json document() {
  Desk desk(says("ok"), parsing_options());
  return ordered_json::parse(desk.call("GET", "/openapi.json").body);
}

TEST(OpenApi, HasEveryRoute) {
  const ordered_json paths = document()["paths"];
  std::set<std::string> expected = {"/health", "/ready", "/ping", "/health_generate", "/v1/models/{model}"};
  for (const Route& route : service_routes()) {
    expected.emplace(route.path);
    const ordered_json entry = paths.value(std::string(route.path), ordered_json::object());
    for (const auto& [name, method] : {std::pair{"get", "GET"}, {"post", "POST"}, {"put", "PUT"}}) {
      const bool has = route.methods.find(method) != std::string_view::npos;
      EXPECT_EQ(entry.contains(name), has) << route.path << " " << method;
    }
  }
  std::set<std::string> described;
  for (const auto& [path, unused] : paths.items()) described.insert(path);
  EXPECT_EQ(described, expected);
}

TEST(OpenApi, ReferencesWhatIsThere) {
  const ordered_json whole = document();
  const std::string text = whole.dump();
  static const std::string kReference = "#/components/schemas/";
  size_t found = 0;
  for (size_t at = text.find(kReference); at != std::string::npos;
       at = text.find(kReference, at + 1), ++found) {
    const size_t begin = at + kReference.size();
    const std::string name = text.substr(begin, text.find('"', begin) - begin);
    EXPECT_TRUE(whole["components"]["schemas"].contains(name)) << name;
  }
  EXPECT_GT(found, 50u);
}

TEST(OpenApi, ItsExamplesAreGoodRequests) {
  for (const Operation& operation : operations()) {
    for (std::string_view example : operation.examples) {
      Desk desk(says("ok"), parsing_options());
      const auto response = desk.post(std::string(operation.paths[0]), std::string(example));
      EXPECT_EQ(response.status, 200) << operation.name << ": " << response.body;
    }
  }
}

TEST(OpenApi, RequiredFieldsAreRequired) {
  for (const Operation& operation : operations()) {
    for (std::string_view field : operation.required) {
      ordered_json body = ordered_json::parse(operation.examples[0]);
      body.erase(std::string(field));
      Desk desk(says("ok"), parsing_options());
      EXPECT_EQ(desk.post(std::string(operation.paths[0]), body.dump()).status, 400)
          << operation.name << " " << field;
    }
  }
}

// The properties of a schema that may stand beside a null.
const ordered_json* properties_of(const ordered_json& schema) {
  if (schema.contains("properties")) return &schema["properties"];
  if (!schema.contains("anyOf")) return nullptr;
  for (const ordered_json& one : schema["anyOf"]) {
    if (one.contains("properties")) return &one["properties"];
  }
  return nullptr;
}

void expect_described(const ordered_json& schema, const std::string& path) {
  const ordered_json* properties = properties_of(schema);
  ASSERT_NE(properties, nullptr) << path;
  for (const auto& [name, field] : properties->items()) {
    const std::string place = path + "." + name;
    EXPECT_FALSE(field.value("description", "").empty() && field.value("enum", ordered_json()).empty())
        << place << ": say in openapi_fields.cc what it means";
    if (field.contains("anyOf") && properties_of(field) != nullptr &&
        field.dump().find("additionalProperties") != std::string::npos) {
      expect_described(field, place);
    }
  }
}

TEST(OpenApi, SaysWhatEveryFieldMeans) {
  const ordered_json whole = document();
  for (const Operation& operation : operations()) {
    if (operation.examples.empty()) continue;
    const std::string name = std::string(operation.name) + "Request";
    expect_described(whole["components"]["schemas"][name], name);
  }
}

TEST(OpenApi, TellsTheBoundsThatAreChecked) {
  const ordered_json whole = document();
  const ordered_json& chat = whole["components"]["schemas"]["chatRequest"]["properties"];
  EXPECT_EQ(chat["top_logprobs"]["maximum"], 20);
  EXPECT_EQ(chat["top_p"]["exclusiveMinimum"], 0);
  EXPECT_EQ(chat["stream_options"]["anyOf"][0]["properties"]["include_usage"]["type"][0], "boolean");
  EXPECT_TRUE(chat["lora_path"]["description"].get<std::string>().starts_with("Refused"));
  const ordered_json& generate = whole["components"]["schemas"]["generateRequest"]["properties"];
  EXPECT_EQ(generate["sampling_params"]["anyOf"][0]["properties"]["min_p"]["maximum"], 1);
  EXPECT_TRUE(
      whole["components"]["schemas"]["anthropicMessageRequest"]["properties"].contains("stop_sequences"));
  EXPECT_FALSE(
      whole["components"]["schemas"]["anthropicCountTokensRequest"]["properties"].contains("stop_sequences"));
}

TEST(OpenApi, AsksForFieldsWithoutRunningAnything) {
  Desk desk(says("ok"), parsing_options());
  desk.call("GET", "/openapi.json");
  EXPECT_TRUE(desk.sink.requests().empty());
}

}  // namespace
}  // namespace fathom::api
