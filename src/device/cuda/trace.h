// When each op of a stream ran, by events between the launches. Costs a little time an op and keeps kernels
// from overlapping: for looking at a step, not for serving.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "base/result.h"

namespace fathom::device::cuda {

struct OpSpan {
  const char* op = "";
  double start_us = 0.0;  // from the trace's begin
  double us = 0.0;
};

// Not thread safe. Movable.
class Trace {
 public:
  // Room for `ops` launches; further ones are dropped and counted.
  static Result<Trace> create(int64_t ops);
  Trace() = default;
  ~Trace();
  Trace(Trace&& other) noexcept;
  Trace& operator=(Trace&& other) noexcept;

  void begin(cudaStream_t stream);
  void mark(const char* op, cudaStream_t stream);
  // Once the stream has come to the last mark.
  Result<std::vector<OpSpan>> spans() const;
  int64_t dropped() const { return dropped_; }

 private:
  std::vector<cudaEvent_t> events_;  // one more than the ops
  std::vector<const char*> ops_;
  int64_t dropped_ = 0;
};

}  // namespace fathom::device::cuda
