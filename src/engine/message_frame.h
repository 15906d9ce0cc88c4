// How node 0 and the engines of other nodes' GPUs frame what they say to each other (plan_wire.h,
// leader_wire.h): the message's kind, the group of requests that it is about, and what it says.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "engine/byte_stream.h"

namespace fathom::engine {

// write(to) writes what the message says.
template <class Write>
std::string frame_message(uint8_t kind, int32_t group, const Write& write) {
  std::string bytes;
  ByteWriter to(bytes);
  to.byte(kind);
  to.number(group);
  write(to);
  return bytes;
}

// Takes any bytes. read(kind, group, from) takes what the message says, and is false for what no `sender` ("a
// leader") of this model says, or for a kind that it does not know.
template <class Read>
Result<void> read_message(std::string_view bytes, int32_t groups, const char* sender, const Read& read) {
  ByteReader from(bytes);
  const uint8_t kind = from.byte();
  const int32_t group = from.number();
  if (from.ok() && group >= 0 && group < groups && read(kind, group, from) && from.done()) return {};
  return error(ErrorCode::kInternal, "{} sent {} bytes that are no message of this model", sender,
               bytes.size());
}

}  // namespace fathom::engine
