// The paths of the service, but for the probes, and what answers them.
#pragma once

#include <span>
#include <string_view>

#include "api/access.h"
#include "api/context.h"
#include "http/message.h"

namespace fathom::api {

using Endpoint = void (*)(const ServiceContext&, const http::Request&, http::ResponseWriter&);

struct Route {
  std::string_view path;
  std::string_view methods;  // separated by blanks; GET serves HEAD too
  Endpoint endpoint;
  bool generates;  // needs a ready engine
  Permission permission = Permission::kCall;
};

std::span<const Route> service_routes();

}  // namespace fathom::api
