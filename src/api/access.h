// Who may call what: keys, tenants, control routes.
#pragma once

#include <optional>

#include "api/caller.h"
#include "api/service.h"
#include "api/tenants.h"

namespace fathom::api {

// What a route shows or touches.
enum class Permission {
  kCall,     // the caller's own requests
  kObserve,  // figures of all tenants together
  kMetrics,  // the same, for a scraper
  kControl,  // what belongs to all tenants
};

// Thread safe.
class Access {
 public:
  explicit Access(const ServiceOptions& options);

  // Nothing: the request may go on, and `caller` says whose it is. 401 without a known key where one is
  // needed, 403 with one that is not allowed this.
  Refusal admit(const http::Request& request, Permission permission, Caller* caller) const;

  void set_keys(const std::vector<ApiKey>& keys);

 private:
  const bool needs_key_;
  const bool has_admin_;  // some key is the administrator's
  const bool multi_tenant_;
  const ApiKey single_key_;  // of --api-key; its key may be empty
  KeyRing keys_;
};

}  // namespace fathom::api
