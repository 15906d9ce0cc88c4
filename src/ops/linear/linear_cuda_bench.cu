// The GPU's linear at the shapes of V2-Lite (BF16) and V3 (FP8): microseconds, bandwidth of the weights,
// TFLOP/s. Each call reads another copy of the weights, so that the L2 cache does not answer; calls follow
// each other in a graph of about 3 ms, as in a step. `ops_linear_cuda_bench [bf16 | fp8 | w8a8 [NAME
// [TOKENS]]]`.
#include <fmt/core.h>

#include <string>

#include "device/cuda/testing.h"
#include "ops/linear/cuda.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;

struct Case {
  const char* name;
  int64_t groups, n, k;
  int64_t top_k;  // experts: copies of a token; 0: dense, or groups are heads
  bool parted = false;
};

__global__ void fill_kernel(uint32_t* data, int64_t count, uint32_t seed, uint32_t mask, uint32_t base) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t h = static_cast<uint32_t>(i) * 2654435761U + seed;
    h ^= h >> 15;
    h *= 2246822519U;
    h ^= h >> 13;
    data[i] = (h & mask) | base;
  }
}

// bf16 (or FP8) values with random signs and mantissas and magnitudes in [2^-4, 1).
void fill(device::cuda::Stream& stream, void* data, int64_t bytes, bool fp8, uint32_t seed) {
  const uint32_t mask = fp8 ? 0x9f9f9f9fU : 0x81ff81ffU;
  const uint32_t base = fp8 ? 0x20202020U : 0x3e003e00U;
  fill_kernel<<<1024, 256, 0, stream.handle()>>>(static_cast<uint32_t*>(data), bytes / 4, seed, mask, base);
  stream.launched("fill");
}

// `rounded`: FP8 activations too.
void run(device::cuda::Stream& stream, const Case& c, DType type, int64_t tokens, bool rounded = false) {
  const int64_t one = c.groups * c.n * c.k * device::size_of(type);
  const int64_t copies = std::max<int64_t>(1, std::min<int64_t>(24, (int64_t{2} << 30) / one));
  DeviceArray<uint8_t> weights(one * copies);
  fill(stream, weights.data(), weights.size(), type == DType::kF8E4M3, 1);
  DeviceArray<float> scales(
      std::vector<float>(static_cast<size_t>(c.groups * ((c.k + 127) / 128) * ((c.n + 7) / 8)), 0.01F));
  const int64_t rows = c.top_k > 0 ? tokens * c.top_k : tokens;
  const int64_t heads = c.top_k > 0 ? 1 : c.groups;
  DeviceArray<uint8_t> x(rows * heads * c.k * 2);
  fill(stream, x.data(), x.size(), rounded, 2);
  const DeviceArray<float> x_scales(std::vector<float>(static_cast<size_t>((c.k + 127) / 128 * rows), 0.01F));
  const DType y_type = c.n <= 256 ? DType::kF32 : DType::kBF16;  // gates' logits
  DeviceArray<uint8_t> y(rows * heads * c.n * device::size_of(y_type));
  std::vector<int32_t> offsets{0};
  int64_t active = c.groups;
  if (c.top_k > 0) {
    active = 0;
    for (int64_t g = 0; g < c.groups; ++g) {
      const auto upto =
          static_cast<int32_t>(rows <= c.groups ? std::min(g + 1, rows) : rows * (g + 1) / c.groups);
      active += upto > offsets.back() ? 1 : 0;
      offsets.push_back(upto);
    }
  }
  DeviceArray<int32_t> device_offsets(offsets);
  const double bytes = static_cast<double>(active * c.n * c.k * device::size_of(type) +
                                           rows * heads * (c.k * (rounded ? 1 : 2) + c.n * 2));
  const double flops = 2.0 * static_cast<double>(rows * heads * c.n * c.k);
  const int calls = std::clamp(static_cast<int>(3000 / (bytes * 4e-7 + flops * 1e-9)), 4, 200);
  int64_t turn = 0;
  const double us =
      device::cuda::testing::graph_time_us(
          stream,
          [&] {
            for (int call = 0; call < calls; ++call) {
              Weight weight{weights.data() + turn++ % copies * one,
                            scales.data(),
                            type,
                            c.n,
                            c.k,
                            c.k,
                            c.groups,
                            rounded,
                            rounded,
                            c.parted};
              LinearArgs args{.x = Matrix(x.data(), DType::kBF16, rows, c.k, heads * c.k),
                              .y = Matrix(y.data(), y_type, rows, c.n, heads * c.n),
                              .weight = &weight,
                              .x8 = {x.data(), x_scales.data(), rows, c.k, c.k, rows}};
              if (heads > 1) {
                batched_linear(stream, {.linear = args, .x_step = c.k, .y_step = c.n});
              } else if (c.top_k == 0) {
                linear(stream, args);
              } else {
                grouped_linear(stream, {.linear = args, .offsets = device_offsets.data(), .max_rows = rows});
              }
            }
          }) /
      calls;
  fmt::print("{:<22} {:<12} {:>6} tokens {:>9.1f} us {:>7.0f} GB/s {:>7.1f} TFLOP/s\n", c.name,
             rounded ? "fp8 x fp8" : device::to_string(type), tokens, us, bytes / us * 1e-3,
             flops / us * 1e-6);
}

}  // namespace
}  // namespace fathom::ops::cuda

int main(int count, char** words) {
  using namespace fathom::ops::cuda;
  auto* stream = fathom::device::cuda::testing::test_stream();
  if (stream == nullptr) {
    fmt::print("no GPU\n");
    return 1;
  }
  using fathom::device::DType;
  // bf16, fp8 or w8a8; then the beginning of a case's name; then a number of tokens.
  const std::string only = count > 1 ? words[1] : "";
  const std::string name = count > 2 ? words[2] : "";
  const int64_t one_size = count > 3 ? std::stoll(words[3]) : 0;
  const auto run = [&](fathom::device::cuda::Stream& on, const Case& c, DType type, int64_t tokens,
                       bool rounded = false) {
    if (std::string(c.name).starts_with(name) && (one_size == 0 || one_size == tokens))
      fathom::ops::cuda::run(on, c, type, tokens, rounded);
  };
  const Case lite[] = {{"v2-lite qkv_a", 1, 3648, 2048, 0},
                       {"v2-lite out", 1, 2048, 2048, 0},
                       {"v2-lite shared up", 1, 5632, 2048, 0},
                       {"v2-lite shared down", 1, 2048, 2816, 0},
                       {"v2-lite head", 1, 102400, 2048, 0},
                       {"v2-lite experts up", 64, 2816, 2048, 6},
                       {"v2-lite experts down", 64, 2048, 1408, 6},
                       {"v2-lite dense up", 1, 21888, 2048, 0},
                       {"v3 head", 1, 129280, 7168, 0}};
  for (const auto& c : lite) {
    if (only == "fp8" || only == "w8a8") break;
    for (const int64_t tokens : {1, 16, 64, 128, 4096}) {
      if (c.n > 50000 && tokens > 128) continue;
      run(*stream, c, DType::kBF16, tokens);
    }
  }
  const Case parted[] = {{"v2-lite qkv_a, in parts", 1, 3648, 2048, 0, true},
                         {"v2-lite out, in parts", 1, 2048, 2048, 0, true}};
  for (const auto& c : parted) {
    if (only == "fp8" || only == "w8a8") break;
    for (const int64_t tokens : {1, 16, 64, 128, 1024, 4096}) run(*stream, c, DType::kBF16, tokens);
  }
  const Case gates[] = {{"v2-lite gate", 1, 64, 2048, 0, true}, {"v3 gate", 1, 256, 7168, 0, true}};
  for (const auto& c : gates) {
    if (only == "fp8" || only == "w8a8") break;
    for (const int64_t tokens : {1, 17, 32, 64, 128, 256, 512, 1024, 4096})
      run(*stream, c, DType::kBF16, tokens);
  }
  const Case heads[] = {{"v3 heads' keys", 128, 512, 128, 0}, {"v3 heads' values", 128, 128, 512, 0}};
  for (const auto& c : heads) {
    if (only == "bf16" || only == "w8a8") break;
    for (const int64_t tokens : {1, 16, 17, 32, 64, 128, 256, 512}) run(*stream, c, DType::kF8E4M3, tokens);
  }
  const Case v3[] = {{"v3 kv_b", 1, 32768, 512, 0},
                     {"v3 qkv_a", 1, 2112, 7168, 0},
                     {"v3 q_b", 1, 24576, 1536, 0},
                     {"v3 out", 1, 7168, 16384, 0},
                     {"v3 experts up (32)", 32, 4096, 7168, 8},
                     {"v3 experts down (32)", 32, 7168, 2048, 8}};
  for (const auto& c : v3) {
    if (only == "bf16" || only == "w8a8") break;
    for (const int64_t tokens : {1, 16, 32, 64, 128, 1024, 4096}) run(*stream, c, DType::kF8E4M3, tokens);
  }
  // The rows of the public kernels' table.
  const Case w8a8[] = {{"v3 qkv_a", 1, 2112, 7168, 0},       {"v3 q_b", 1, 24576, 1536, 0},
                       {"v3 out", 1, 7168, 16384, 0},        {"v3 shared up", 1, 4096, 7168, 0},
                       {"v3 shared down", 1, 7168, 2048, 0}, {"v3 dense up", 1, 36864, 7168, 0},
                       {"v3 dense down", 1, 7168, 18432, 0}};
  const Case experts[] = {{"v3 experts up (32)", 32, 4096, 7168, 1},
                          {"v3 experts down (32)", 32, 7168, 2048, 1}};
  const Case all_experts[] = {{"v3 experts up", 256, 4096, 7168, 8},
                              {"v3 experts down", 256, 7168, 2048, 8},
                              {"v3 experts up / 2", 256, 2048, 7168, 8},
                              {"v3 experts down / 2", 256, 7168, 1024, 8}};
  if (only == "bf16" || only == "fp8" || !stream->gpu().hopper()) return stream->synchronize().ok() ? 0 : 1;
  for (const auto& c : w8a8) {
    for (const int64_t tokens : {1, 16, 64, 128, 512, 4096}) run(*stream, c, DType::kF8E4M3, tokens, true);
  }
  for (const auto& c : experts) {
    for (const int64_t rows : {1, 4, 16, 64, 128, 512}) run(*stream, c, DType::kF8E4M3, 32 * rows, true);
  }
  for (const auto& c : all_experts) {
    for (const int64_t tokens : {1, 16, 128, 256, 4096}) run(*stream, c, DType::kF8E4M3, tokens, true);
  }
  return stream->synchronize().ok() ? 0 : 1;
}
