#include "api/access.h"

#include <cctype>

namespace fathom::api {
namespace {

std::vector<ApiKey> with_single_key(const ApiKey& single, std::vector<ApiKey> keys) {
  if (!single.key.empty()) keys.push_back(single);
  return keys;
}

// The key that the request carries: `Authorization: Bearer KEY`, or `x-api-key: KEY`.
std::optional<std::string_view> key_of(const http::Request& request) {
  if (const std::string* header = request.header("authorization")) {
    static constexpr std::string_view kScheme = "bearer ";
    const std::string_view given = *header;
    bool bearer = given.size() >= kScheme.size();
    for (size_t i = 0; bearer && i < kScheme.size(); ++i) {
      bearer = std::tolower(static_cast<unsigned char>(given[i])) == kScheme[i];
    }
    if (bearer) return given.substr(kScheme.size());
  }
  if (const std::string* header = request.header("x-api-key")) return *header;
  return std::nullopt;
}

}  // namespace

Access::Access(const ServiceOptions& options)
    : needs_key_(!options.api_key.empty() || options.keys.has_value()),
      has_admin_(!options.admin_api_key.empty()),
      multi_tenant_(options.multi_tenant),
      // No name of a key file has brackets.
      single_key_({"(api-key)", options.api_key, {}, false, false}),
      keys_(options.admin_api_key,
            with_single_key(single_key_, options.keys.value_or(std::vector<ApiKey>()))) {}

void Access::set_keys(const std::vector<ApiKey>& keys) {
  keys_.replace(with_single_key(single_key_, keys));
}

Refusal Access::admit(const http::Request& request, Permission permission, Caller* caller) const {
  const std::optional<std::string_view> key = key_of(request);
  const std::optional<KeyRing::Access> found = key ? keys_.find(*key) : std::nullopt;
  if (!found && needs_key_) {
    return ApiError{401, "Missing or wrong API key; send 'Authorization: Bearer KEY'", {}, "invalid_api_key"};
  }
  const bool admin = found && found->admin;
  caller->may_control = admin || !(has_admin_ || multi_tenant_);
  if (found && found->tenant) {
    caller->tenant = found->tenant;
    if (multi_tenant_) caller->scope = fmt::format("key:{}:", found->tenant->name());
  }
  const bool may_observe = admin || !multi_tenant_;
  const bool allowed = permission == Permission::kCall ||
                       (permission == Permission::kControl && caller->may_control) ||
                       (permission == Permission::kObserve && may_observe) ||
                       (permission == Permission::kMetrics && (may_observe || (found && found->metrics)));
  if (allowed) return std::nullopt;
  return ApiError{
      403,
      fmt::format("{} needs the administrator's key (--admin-api-key, or the option admin{} in the key "
                  "file)",
                  request.path, permission == Permission::kMetrics ? " or metrics" : ""),
      {},
      "admin_key_required"};
}

}  // namespace fathom::api
