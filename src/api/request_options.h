// What every generating endpoint reads besides its prompt and sampling fields.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "api/context.h"
#include "api/fields.h"
#include "http/message.h"

namespace fathom::api {

// The body of `request` as a JSON object; refuses other content types and whatever parse_json_object does.
Refusal read_body(const ServiceContext& context, const http::Request& request, nlohmann::ordered_json* out);

struct RequestOptions {
  std::string rid;  // the client's, or a random one
  int32_t priority = 0;
  std::string cache_namespace;  // requests share cached prefixes within one only
  bool explain_cache = false;   // why the prompt was not all cached
  std::optional<int32_t> data_parallel_rank;
};

void read_request_options(Fields& fields, RequestOptions* out);
// The part without rid, for /generate, where it may be a list.
void read_scheduling_options(Fields& fields, RequestOptions* out);

struct StreamOptions {
  bool stream = false;
  bool include_usage = false;     // a last chunk with the usage
  bool continuous_usage = false;  // usage in every chunk
};
void read_stream_options(Fields& fields, StreamOptions* out);

// Fields of the reference system that need parts Fathom does not have.
void refuse_unavailable(Fields& fields);

}  // namespace fathom::api
