// Why a prompt was not all found in the prefix cache.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace fathom {

enum class MissReason : uint8_t {
  kPageTail,         // nothing was missed: what is left does not fill a page, or is the last token
  kFirstDifference,  // the cache goes on with other tokens
  kEvicted,          // the next page was cached and gave way
  kOtherSalt,        // it is cached, for another cache namespace
  kNeverSeen,        // nothing of the kind is known
  kLogprobs,         // prompt logprobs were asked for, which must be computed
  kCacheOff,         // there is no prefix cache
};
inline constexpr size_t kMissReasons = 7;
inline constexpr std::array<std::string_view, kMissReasons> kMissReasonNames = {
    "page_tail", "first_difference", "evicted", "other_salt", "never_seen", "logprobs", "cache_off"};

constexpr std::string_view to_string(MissReason reason) {
  return kMissReasonNames[static_cast<size_t>(reason)];
}

struct CacheMiss {
  MissReason reason = MissReason::kPageTail;
  // The first token that was not found; for kFirstDifference the one that differs, up to a page later.
  int32_t at_token = 0;
  std::vector<int32_t> expected;  // kFirstDifference: what the cache has from there on, a few tokens
};

// How much a request wants to know. Other namespaces are others' business unless the operator says otherwise.
enum class ExplainMiss : uint8_t { kNo, kOwnNamespace, kAllNamespaces };

// By reason: of requests when first admitted, and of their prompt tokens that were not found.
struct MissCounters {
  std::array<int64_t, kMissReasons> requests{};
  std::array<int64_t, kMissReasons> tokens{};
};

}  // namespace fathom
