// The calls of NCCL that groups of several processes make (nccl_group.h), from the library that the machine
// has: it is loaded when such a group starts, and needed for nothing else. Names, types and values are those
// of NCCL's own header, whose interface has been the same since version 2.7.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <string>

#include "base/result.h"

namespace fathom::dist::cuda {

struct Nccl {
  using Comm = void*;
  struct UniqueId {
    std::array<char, 128> bytes{};
  };
  static constexpr int kSuccess = 0;
  static constexpr int kBytes = 0;  // ncclInt8

  // Loads it once; kUnavailable, with what to install, where it cannot be found.
  static Result<const Nccl*> load();

  int version = 0;  // 22603: 2.26.3
  int (*get_unique_id)(UniqueId*) = nullptr;
  int (*comm_init_rank)(Comm*, int ranks, UniqueId id, int rank) = nullptr;
  int (*comm_abort)(Comm) = nullptr;
  int (*comm_get_async_error)(Comm, int* result) = nullptr;
  int (*group_start)() = nullptr;
  int (*group_end)() = nullptr;
  int (*send)(const void*, size_t count, int type, int peer, Comm, cudaStream_t) = nullptr;
  int (*recv)(void*, size_t count, int type, int peer, Comm, cudaStream_t) = nullptr;
  const char* (*get_error_string)(int result) = nullptr;

  Result<void> check(int result, const char* what) const;
};

}  // namespace fathom::dist::cuda
