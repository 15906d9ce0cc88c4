// One request to a Service in the same process, without a socket.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "api/service.h"
#include "http/message.h"

namespace fathom::app {

struct LocalAnswer {
  int status = 0;
  std::string body;  // of a streamed answer: empty, the bytes went to the sink
};

// POSTs `body` to `path` and waits for the whole answer. A streamed answer's bytes go to `on_bytes` as they
// come; when it returns false the client counts as gone.
LocalAnswer post(api::Service& service, const std::string& path, std::string body,
                 const std::function<bool(std::string_view)>& on_bytes = nullptr);

}  // namespace fathom::app
