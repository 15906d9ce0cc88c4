#include "api/caller.h"

#include <algorithm>

#include "api/active_requests.h"
#include "api/sampling_fields.h"

namespace fathom::api {

std::string request_id_of(const http::Request& request) {
  const std::string* given = request.header("x-request-id");
  const auto printable = [](char c) { return c > ' ' && c <= '~'; };
  const bool good = given != nullptr && !given->empty() && given->size() <= kMaxIdBytes &&
                    std::all_of(given->begin(), given->end(), printable);
  return good ? *given : random_id();
}

}  // namespace fathom::api
