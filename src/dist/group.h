// A group of ranks and what they do together. A rank is one share of a model: a thread with its own weights
// and KV pool, here or on another node. The model knows this interface; who carries the bytes (threads of one
// process, later NCCL between GPUs and sockets between nodes) is chosen when the ranks start.
//
// Every rank of a group calls the same collectives in the same order with the same sizes. A handle belongs to
// one rank and is used by its thread alone; abort() and state() may be called by any thread.
//
// Sums are added in the order of ranks, so that every rank has the same bits, every time.
//
// Failure is final and shared. A collective that a rank does not come to within the timeout, that ranks
// disagree on, or whose rank has gone, ends the group and every group split from the same world: all ranks,
// waiting or not, get the first error from then on, and it names the rank. Buffers of a call that returned
// are no longer touched by others.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "device/dtype.h"

namespace fathom::dist {

// What one rank sends to, or receives from, one other.
struct Outgoing {
  const void* data = nullptr;
  int64_t bytes = 0;
};
struct Incoming {
  void* data = nullptr;
  int64_t bytes = 0;
};

class Group {
 public:
  // A rank whose handle dies has left: whoever waits for it fails at once.
  virtual ~Group() = default;

  virtual int rank() const = 0;  // 0 .. size() - 1
  virtual int size() const = 0;

  // In place: `data` [count] becomes the sum over the ranks. kF32, or kBF16 (added in float32, rounded once).
  virtual Result<void> all_reduce(void* data, int64_t count, device::DType dtype) = 0;
  // `receive` [sum of bytes]: what every rank sent, in the order of ranks. Rank r sends bytes[r]; all ranks
  // give the same `bytes` [size()]. `receive` must not overlap `send`.
  virtual Result<void> all_gather(const void* send, std::span<const int64_t> bytes, void* receive) = 0;
  // `data` [sum of counts] lies in parts in the order of ranks; `receive` [counts[rank()]] becomes the sum
  // over the ranks of this rank's part. Types as all_reduce. `receive` must not overlap `data`.
  virtual Result<void> reduce_scatter(const void* data, std::span<const int64_t> counts, device::DType dtype,
                                      void* receive) = 0;
  // Rank `root`'s `data` [bytes] becomes everyone's.
  virtual Result<void> broadcast(void* data, int64_t bytes, int root) = 0;
  // send[r] goes to rank r, receive[r] comes from it: [size()] each. The sizes of a pair must agree.
  virtual Result<void> all_to_all(std::span<const Outgoing> send, std::span<const Incoming> receive) = 0;
  virtual Result<void> barrier() = 0;

  // Those who give the same colour become a group, in the order of their ranks; `name` stands in its errors.
  virtual Result<std::unique_ptr<Group>> split(int colour, const std::string& name) = 0;

  // Ends this group and all of its world with `error`, unless they ended before.
  virtual void abort(Error error) = 0;
  // The error that ended the group, or nothing.
  virtual Result<void> state() const = 0;
};

inline constexpr std::chrono::milliseconds kDefaultTimeout{300'000};  // --dist-timeout

}  // namespace fathom::dist
