// One collective as a rank calls it. Used by the groups of this room alone.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "dist/group.h"

namespace fathom::dist {

// What a rank has come to do; the others read it once its ticket says so.
struct Call {
  enum class Kind { kAllReduce, kAllGather, kReduceScatter, kBroadcast, kAllToAll, kBarrier };
  explicit Call(Kind kind_in = Kind::kBarrier, device::DType dtype_in = device::DType::kF32)
      : kind(kind_in), dtype(dtype_in) {}
  Kind kind;
  device::DType dtype;
  int root = 0;
  int64_t count = 0;               // values of all_reduce, bytes of broadcast
  std::span<const int64_t> parts;  // counts or bytes, one a rank
  const void* send = nullptr;
  void* receive = nullptr;
  std::span<const Outgoing> outgoing;
  std::span<const Incoming> incoming;
};
const char* to_string(Call::Kind kind);
// "" when the two fit together, or what differs.
std::string difference(const Call& mine, const Call& theirs);

}  // namespace fathom::dist
