#include "engine/pool_size.h"

#include <algorithm>

#include "base/math.h"

namespace fathom::engine {

Result<PoolSize> size_pool(const PoolRequest& request) {
  const double fraction = request.mem_fraction > 0 ? request.mem_fraction : kDefaultFraction;
  const auto budget = static_cast<int64_t>(static_cast<double>(request.available_bytes) * fraction);
  const int64_t page_bytes = request.bytes_per_token * request.page_size;
  const int64_t by_memory = std::max<int64_t>(budget - request.weight_bytes, 0) / page_bytes;
  const int64_t by_use = request.max_running * ceil_div(request.max_context, request.page_size);

  PoolSize size;
  size.pages = by_memory;
  size.bound = "memory";
  if (by_use < size.pages) {
    size.pages = by_use;
    size.bound = "every sequence at full context";
  }
  if (request.max_total_tokens > 0) {
    const int64_t wish = ceil_div(request.max_total_tokens, request.page_size);
    if (wish > by_memory) {
      return error(ErrorCode::kUnavailable,
                   "--max-total-tokens {} needs {} MiB of KV cache, but {} MiB of memory are available, of "
                   "which {:.0f} "
                   "% may be used and weights take {} MiB: lower it, or raise --mem-fraction-static",
                   request.max_total_tokens, (wish * page_bytes) >> 20, request.available_bytes >> 20,
                   fraction * 100, request.weight_bytes >> 20);
    }
    size.pages = wish;
    size.bound = "--max-total-tokens";
  }
  if (size.pages < 1) {
    return error(ErrorCode::kUnavailable,
                 "no memory is left for the KV cache: {} MiB are available, of which {:.0f} % may be used, "
                 "and weights "
                 "take {} MiB: raise --mem-fraction-static or use a machine with more memory",
                 request.available_bytes >> 20, fraction * 100, request.weight_bytes >> 20);
  }
  size.bytes = size.pages * page_bytes;
  return size;
}

}  // namespace fathom::engine
