#include "dist/call.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace fathom::dist {

const char* to_string(Call::Kind kind) {
  switch (kind) {
    case Call::Kind::kAllReduce:
      return "all-reduce";
    case Call::Kind::kAllGather:
      return "all-gather";
    case Call::Kind::kReduceScatter:
      return "reduce-scatter";
    case Call::Kind::kBroadcast:
      return "broadcast";
    case Call::Kind::kAllToAll:
      return "all-to-all";
    case Call::Kind::kBarrier:
      return "barrier";
  }
  return "?";
}

std::string difference(const Call& mine, const Call& theirs) {
  if (mine.kind != theirs.kind)
    return fmt::format("{} against {}", to_string(mine.kind), to_string(theirs.kind));
  if (mine.dtype != theirs.dtype)
    return fmt::format("{} against {}", device::to_string(mine.dtype), device::to_string(theirs.dtype));
  if (mine.root != theirs.root) return fmt::format("root {} against {}", mine.root, theirs.root);
  if (mine.count != theirs.count) return fmt::format("size {} against {}", mine.count, theirs.count);
  if (!std::equal(mine.parts.begin(), mine.parts.end(), theirs.parts.begin(), theirs.parts.end()))
    return fmt::format("sizes [{}] against [{}]", fmt::join(mine.parts, ", "), fmt::join(theirs.parts, ", "));
  return {};
}

}  // namespace fathom::dist
