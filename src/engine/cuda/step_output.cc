#include "engine/cuda/step_output.h"

#include <algorithm>

#include "device/cuda/pinned_copy.h"

namespace fathom::engine::cuda {

using sample::cuda::GpuSampler;

Result<DeviceLogprobs> DeviceLogprobs::allocate(int64_t rows, device::cuda::DeviceArena& arena) {
  DeviceLogprobs memory;
  FATHOM_ASSIGN(memory.token_logprobs, arena.allocate_array<float>(rows));
  FATHOM_ASSIGN(memory.top_tokens, arena.allocate_array<int32_t>(rows * GpuSampler::kMaxTop));
  FATHOM_ASSIGN(memory.top_logprobs, arena.allocate_array<float>(rows * GpuSampler::kMaxTop));
  FATHOM_ASSIGN(memory.requested_logprobs, arena.allocate_array<float>(rows * kRequested));
  FATHOM_ASSIGN(memory.ids, arena.allocate_array<int32_t>(rows * kRequested));
  FATHOM_ASSIGN(memory.tokens, arena.allocate_array<int32_t>(rows));
  FATHOM_ASSIGN(memory.rows, arena.allocate_array<int32_t>(rows));
  return memory;
}

void LogprobShape::widen(const LogprobParams& params) {
  top = std::max(top, std::min(params.top, GpuSampler::kMaxTop));
  requested = std::max(
      requested, static_cast<int32_t>(std::min<size_t>(params.token_ids.size(), DeviceLogprobs::kRequested)));
}

Result<StepOutput> StepOutput::allocate(int64_t rows) {
  StepOutput output;
  const int64_t words = rows * (4 + 2 * GpuSampler::kMaxTop + 2 * DeviceLogprobs::kRequested);
  FATHOM_ASSIGN(output.memory_, device::cuda::PinnedBuffer::allocate(static_cast<size_t>(words) * 4));
  auto* at = static_cast<int32_t*>(output.memory_.data());
  const auto take = [&](int64_t count) {
    int32_t* begin = at;
    at += count;
    return begin;
  };
  output.tokens_ = take(rows);
  output.row_ids_ = take(rows);
  output.row_tokens_ = take(rows);
  output.token_logprobs_ = reinterpret_cast<float*>(take(rows));
  output.top_tokens_ = take(rows * GpuSampler::kMaxTop);
  output.top_logprobs_ = reinterpret_cast<float*>(take(rows * GpuSampler::kMaxTop));
  output.requested_logprobs_ = reinterpret_cast<float*>(take(rows * DeviceLogprobs::kRequested));
  output.ids_ = take(rows * DeviceLogprobs::kRequested);
  return output;
}

void StepOutput::bring_tokens(device::cuda::Stream& stream, const int32_t* tokens, int64_t rows) {
  device::cuda::copy_pinned(stream, tokens_, tokens, static_cast<size_t>(rows) * sizeof(int32_t));
}

void StepOutput::bring_logprobs(device::cuda::Stream& stream, const DeviceLogprobs& from, int64_t rows,
                                const LogprobShape& shape) {
  shape_ = shape;
  const auto count = static_cast<size_t>(rows);
  stream.copy(token_logprobs_, from.token_logprobs, count * sizeof(float));
  stream.copy(top_tokens_, from.top_tokens, count * static_cast<size_t>(shape.top) * sizeof(int32_t));
  stream.copy(top_logprobs_, from.top_logprobs, count * static_cast<size_t>(shape.top) * sizeof(float));
  stream.copy(requested_logprobs_, from.requested_logprobs,
              count * static_cast<size_t>(shape.requested) * sizeof(float));
}

TokenOutput StepOutput::token(int64_t row) const {
  TokenOutput output;
  output.token = tokens_[row];
  return output;
}

TokenOutput StepOutput::described(int64_t row, int32_t token, const LogprobParams& params) const {
  TokenOutput output;
  output.token = token;
  output.logprob = token_logprobs_[row];
  for (int32_t i = 0; i < std::min(params.top, shape_.top); ++i) {
    const int64_t at = row * shape_.top + i;
    if (top_tokens_[at] >= 0) output.top.push_back({top_tokens_[at], top_logprobs_[at]});
  }
  FATHOM_CHECK_LE(params.token_ids.size(), static_cast<size_t>(DeviceLogprobs::kRequested));
  for (size_t i = 0; i < params.token_ids.size(); ++i) {
    output.requested.push_back(
        {params.token_ids[i], requested_logprobs_[row * shape_.requested + static_cast<int64_t>(i)]});
  }
  return output;
}

}  // namespace fathom::engine::cuda
