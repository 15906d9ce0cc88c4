// A streamed answer: server-sent events of JSON.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "api/errors.h"
#include "http/message.h"

namespace fathom::api {

// The head is sent with the first event, so that an error before it still gets its own HTTP status. Used by
// the handler's thread.
class EventStream {
 public:
  EventStream(http::ResponseWriter& writer, http::Headers headers)
      : writer_(writer), headers_(std::move(headers)) {}

  // False: the client is gone.
  bool send(const nlohmann::ordered_json& event);
  // The same, named by its "type".
  bool send_named(const nlohmann::ordered_json& event);
  bool keep_alive();
  // The error as an event, or as a whole response when nothing was sent yet. Ends the answer.
  void fail(const ApiError& error);
  void finish();  // "[DONE]", and the end
  void end();     // without
  bool begun() const { return begun_; }

 private:
  bool begin();

  http::ResponseWriter& writer_;
  http::Headers headers_;
  bool begun_ = false;
};

// x-request-id, for ids that can stand in a header.
http::Headers request_id_header(const std::string& rid);

}  // namespace fathom::api
