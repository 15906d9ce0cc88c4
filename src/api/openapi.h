// The service's description of itself: OpenAPI 3.1, with every route and field.
//
// The fields of requests are those that the endpoints read: each endpoint is given its example requests while
// its readers note what they ask for (FieldLog), so the document cannot differ from the checks. What only the
// models of other APIs define (messages, content parts, answers) is written down in openapi_schemas.cc.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "api/context.h"

namespace fathom::api {

// One entry for each route with a request or an answer of its own; several paths may share one.
struct Operation {
  std::vector<std::string_view> paths;
  std::string_view name;  // operationId, and with "Request" the name of the body's schema
  std::string_view summary;
  std::vector<std::string_view>
      examples;  // of bodies, as JSON; together they have every field that has fields
  std::vector<std::string_view> required;  // fields of the body
  std::string_view answer;                 // the answer's schema; empty: text
  std::string_view event;                  // a stream event's schema; empty: not streamed
};
std::span<const Operation> operations();

// What a field means; empty where nobody has written it down. `path` may go deeper:
// "stream_options.include_usage".
std::string_view describe_field(std::string_view path);

// The schemas that are written down, as JSON texts by name.
struct NamedSchema {
  std::string_view name;
  std::string_view json;
};
std::span<const NamedSchema> written_schemas();
// The schema of a field whose form the readers do not tell; empty where there is none.
std::string_view written_field_schema(std::string_view operation, std::string_view path);

// The fields that the endpoint of `path` reads from the bodies.
FieldLog read_fields(const ServiceContext& context, std::string_view path,
                     std::span<const std::string_view> bodies);

nlohmann::ordered_json openapi_document(const ServiceContext& context);

}  // namespace fathom::api
