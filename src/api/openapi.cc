#include "api/openapi.h"

#include <algorithm>
#include <cmath>

#include "api/endpoints.h"
#include "api/routes.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;
using Kind = FieldNote::Kind;

// Takes the answer of an endpoint that is only asked for its fields.
class NoWriter final : public http::ResponseWriter {
 public:
  void send(http::Response) override {}
  bool begin_stream(int, std::string, http::Headers) override { return false; }
  bool write(std::string_view) override { return false; }
  void end() override {}
  bool client_gone() const override { return false; }
  void on_client_gone(std::function<void()>) override {}
};

ordered_json reference(std::string_view name) {
  return {{"$ref", fmt::format("#/components/schemas/{}", name)}};
}

ordered_json number_or_integer(double value) {
  if (value == std::floor(value) && std::abs(value) < 9e15) return static_cast<int64_t>(value);
  return value;
}

void add_range(const Range& range, ordered_json* schema) {
  (*schema)[range.open_min ? "exclusiveMinimum" : "minimum"] = number_or_integer(range.min);
  (*schema)["maximum"] = number_or_integer(range.max);
}

// Null is the same as an absent field.
ordered_json nullable(const char* type) {
  return {{"type", ordered_json::array({type, "null"})}};
}

ordered_json string_schema(size_t max_bytes) {
  ordered_json schema = {{"type", "string"}};
  // A character has at least one byte.
  if (max_bytes > 0 && max_bytes < (size_t{1} << 40)) schema["maxLength"] = max_bytes;
  return schema;
}

ordered_json list_schema(ordered_json items, size_t max_count) {
  ordered_json schema = {{"type", "array"}, {"items", std::move(items)}};
  if (max_count > 0 && max_count < (size_t{1} << 40)) schema["maxItems"] = max_count;
  return schema;
}

ordered_json or_null(ordered_json schema) {
  return {{"anyOf", ordered_json::array({std::move(schema), {{"type", "null"}}})}};
}

ordered_json field_schema(const FieldNote& note) {
  ordered_json schema;
  switch (note.kind) {
    case Kind::kBoolean:
      return nullable("boolean");
    case Kind::kInteger:
      schema = nullable("integer");
      add_range(note.range, &schema);
      return schema;
    case Kind::kNumber:
      schema = nullable("number");
      add_range(note.range, &schema);
      return schema;
    case Kind::kString:
      schema = string_schema(note.max_bytes);
      schema["type"] = ordered_json::array({"string", "null"});
      return schema;
    case Kind::kStrings: {
      const ordered_json one = string_schema(note.max_bytes);
      return {{"anyOf", ordered_json::array({one, list_schema(one, note.max_count), {{"type", "null"}}})}};
    }
    case Kind::kIntegers: {
      ordered_json item = {{"type", "integer"}};
      add_range(note.range, &item);
      return or_null(list_schema(std::move(item), note.max_count));
    }
    case Kind::kList:
      return or_null({{"type", "array"}});
    case Kind::kObject:
      return or_null({{"type", "object"}});
    case Kind::kAny:
      return ordered_json::object();
    case Kind::kIgnored:
      return {{"description", "Accepted, without effect."}};
    case Kind::kRefused:
      // What asks for nothing is accepted.
      return {
          {"description", fmt::format("Refused: {}.", note.why)},
          {"enum", ordered_json::array({nullptr, false, "", ordered_json::array(), ordered_json::object()})}};
  }
  return ordered_json::object();
}

// The schema of a body: an object of the fields at `prefix`, objects within by their own fields.
ordered_json object_schema(std::string_view operation, const FieldLog& log, std::string_view prefix) {
  ordered_json properties = ordered_json::object();
  for (const FieldNote& note : log) {
    if (!note.path.starts_with(prefix)) continue;
    const std::string name = note.path.substr(prefix.size());
    if (name.find('.') != std::string::npos || properties.contains(name)) continue;
    ordered_json schema;
    const std::string_view written = written_field_schema(operation, note.path);
    const std::string inner = note.path + ".";
    const bool nested = std::any_of(log.begin(), log.end(),
                                    [&](const FieldNote& other) { return other.path.starts_with(inner); });
    if (!written.empty()) {
      schema = ordered_json::parse(written);
    } else if (nested) {
      schema = or_null(object_schema(operation, log, inner));
    } else {
      schema = field_schema(note);
    }
    const std::string_view text = describe_field(note.path);
    if (!schema.contains("description") && !text.empty()) schema["description"] = text;
    properties[name] = std::move(schema);
  }
  return {{"type", "object"}, {"properties", std::move(properties)}, {"additionalProperties", false}};
}

ordered_json request_body(const Operation& operation) {
  ordered_json examples = ordered_json::object();
  for (size_t i = 0; i < operation.examples.size(); ++i) {
    examples[fmt::format("example{}", i + 1)] = {{"value", ordered_json::parse(operation.examples[i])}};
  }
  ordered_json media = {{"schema", reference(fmt::format("{}Request", operation.name))},
                        {"examples", std::move(examples)}};
  return {{"required", true}, {"content", {{"application/json", std::move(media)}}}};
}

ordered_json answers(const Operation& operation) {
  const std::string_view failure = operation.name.starts_with("anthropic") ? "AnthropicError" : "Error";
  ordered_json content = ordered_json::object();
  if (operation.answer.empty()) {
    content["text/plain"] = {{"schema", {{"type", "string"}}}};
  } else {
    content["application/json"] = {{"schema", reference(operation.answer)}};
  }
  if (!operation.event.empty()) {
    content["text/event-stream"] = {
        {"schema", {{"type", "string"}, {"description", fmt::format("Events of {}", operation.event)}}},
        {"x-event-schema", reference(operation.event)}};
  }
  return {
      {"200", {{"description", "The answer"}, {"content", std::move(content)}}},
      {"default",
       {{"description", "An error"}, {"content", {{"application/json", {{"schema", reference(failure)}}}}}}}};
}

bool is_probe(std::string_view path) {
  return path == "/health" || path == "/ready" || path == "/ping";
}

ordered_json operation_json(const Operation& operation, std::string_view path, std::string_view method,
                            bool first) {
  ordered_json json = {{"summary", operation.summary}};
  // An id names one operation only: the first path's and method's.
  if (first) json["operationId"] = operation.name;
  if (is_probe(path)) json["security"] = ordered_json::array();
  ordered_json parameters = ordered_json::array();
  if (path.find('{') != std::string_view::npos) {
    parameters.push_back(
        {{"name", "model"}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}});
  }
  if (path == "/flush_cache") {
    parameters.push_back({{"name", "timeout"},
                          {"in", "query"},
                          {"description", "Seconds to wait for the engine to be idle"},
                          {"schema", {{"type", "number"}, {"minimum", 0}, {"maximum", 300}}}});
  }
  if (!parameters.empty()) json["parameters"] = std::move(parameters);
  if (!operation.examples.empty() && method != "GET") json["requestBody"] = request_body(operation);
  json["responses"] = answers(operation);
  return json;
}

std::string lower(std::string_view text) {
  std::string lowered(text);
  std::transform(lowered.begin(), lowered.end(), lowered.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lowered;
}

// The methods of a path that is in no table: the probes and /v1/models/{model}.
std::string_view methods_of(std::string_view path) {
  for (const Route& route : service_routes()) {
    if (route.path == path) return route.methods;
  }
  return "GET";
}

}  // namespace

FieldLog read_fields(const ServiceContext& context, std::string_view path,
                     std::span<const std::string_view> bodies) {
  FieldLog log;
  ServiceContext describing = context;
  describing.field_log = &log;
  for (const Route& route : service_routes()) {
    if (route.path != path) continue;
    for (std::string_view body : bodies) {
      http::Request request;
      request.method = "POST";
      request.path = path;
      request.body = body;
      NoWriter writer;
      route.endpoint(describing, request, writer);
    }
  }
  return log;
}

ordered_json openapi_document(const ServiceContext& context) {
  ordered_json paths = ordered_json::object();
  ordered_json schemas = ordered_json::object();
  for (const Operation& operation : operations()) {
    bool first = true;
    for (std::string_view path : operation.paths) {
      ordered_json& entry = paths[std::string(path)];
      std::string_view methods = methods_of(path);
      while (!methods.empty()) {
        const size_t end = std::min(methods.find(' '), methods.size());
        const std::string_view method = methods.substr(0, end);
        entry[lower(method)] = operation_json(operation, path, method, std::exchange(first, false));
        methods.remove_prefix(std::min(end + 1, methods.size()));
      }
    }
    if (operation.examples.empty()) continue;
    ordered_json body =
        object_schema(operation.name, read_fields(context, operation.paths[0], operation.examples), "");
    if (!operation.required.empty()) body["required"] = operation.required;
    schemas[fmt::format("{}Request", operation.name)] = std::move(body);
  }
  for (const NamedSchema& schema : written_schemas()) {
    schemas[std::string(schema.name)] = ordered_json::parse(schema.json);
  }
  return {{"openapi", "3.1.0"},
          {"info",
           {{"title", "Fathom"},
            {"version", "1"},
            {"description", "Null is the same as an absent field. Fields that are not listed are refused."}}},
          {"security", ordered_json::array({{{"bearer", ordered_json::array()}},
                                            {{"key", ordered_json::array()}},
                                            ordered_json::object()})},
          {"paths", std::move(paths)},
          {"components",
           {{"securitySchemes",
             {{"bearer", {{"type", "http"}, {"scheme", "bearer"}}},
              {"key", {{"type", "apiKey"}, {"in", "header"}, {"name", "x-api-key"}}}}},
            {"schemas", std::move(schemas)}}}};
}

void handle_openapi(const ServiceContext& context, const http::Request& /*request*/,
                    http::ResponseWriter& writer) {
  writer.send(json_response(openapi_document(context)));
}

}  // namespace fathom::api
