// The HTTP request at hand: whose it is, by what it is called, and when it came.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "http/message.h"

namespace fathom::api {

class Tenant;

// What became of the request, for the request log; filled while it runs.
struct RequestRecord {
  std::string rid;
  int32_t choices = 0;  // 0: it never ran
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t output_tokens = 0;
  double queue_seconds = -1.0;        // below 0: it was never admitted
  double first_token_seconds = -1.0;  // below 0: there was none
  std::vector<std::string> finish;    // how each choice ended
  std::string disconnected_in;        // the stage, when the client vanished
  nlohmann::ordered_json sampling;    // from level 1 on
  std::vector<std::string> outputs;   // from level 2 on
};

struct Caller {
  // X-Request-Id: the client's, or a random one. Every answer carries it.
  std::string request_id;
  int64_t arrived_ns = 0;            // when the handler began
  http::Request* request = nullptr;  // without its body once it runs

  std::shared_ptr<Tenant> tenant;  // null: no key, or the administrator's
  // Before the request's ids and cache namespaces, so that tenants have their own; empty where there is one
  // tenant.
  std::string scope;
  bool may_control = true;  // what belongs to all

  RequestRecord record;
};

// The client's X-Request-Id if it has one that can stand in a log and a header (1 to 256 printable ASCII
// characters without blanks), else a random id.
std::string request_id_of(const http::Request& request);

}  // namespace fathom::api
