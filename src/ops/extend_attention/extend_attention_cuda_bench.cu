// Time and rate of extend_attention on the GPU for whole prompts, beside FlashAttention-3's on an H100:
//   ops_extend_attention_cuda_bench
#include <cuda_bf16.h>
#include <fmt/format.h>

#include "device/cuda/testing.h"
#include "ops/extend_attention/cuda.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;

constexpr int64_t kNope = 128, kRope = 64, kValue = 128;

struct Case {
  int64_t heads, sequences, length;
  double peer_us;  // 0: not measured
};
constexpr Case kCases[] = {{16, 1, 4096, 162}, {128, 1, 4096, 1037}, {16, 1, 512, 0},
                           {16, 1, 1024, 0},   {16, 1, 2048, 0},     {16, 1, 8192, 0},
                           {16, 8, 1024, 0},   {128, 1, 1024, 0},    {128, 1, 8192, 0}};

__global__ void fill(__nv_bfloat16* to, int64_t count, uint32_t seed) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    uint32_t bits = static_cast<uint32_t>(i) * 2654435761U + seed;
    bits = (bits ^ (bits >> 15)) * 2246822519U;
    bits = (bits ^ (bits >> 13)) * 3266489917U;
    to[i] = __float2bfloat16(static_cast<float>(bits >> 8) * 0x1p-22F - 2.0F);
  }
}

void measure(device::cuda::Stream& stream, const Case& c) {
  const int64_t tokens = c.sequences * c.length;
  const DeviceArray<__nv_bfloat16> q(tokens * c.heads * (kNope + kRope)),
      kv(tokens * c.heads * (kNope + kValue)), rope(tokens * kRope), out(tokens * c.heads * kValue);
  uint32_t seed = 0;
  for (const auto* array : {&q, &kv, &rope}) {
    fill<<<1024, 256, 0, stream.handle()>>>(array->data(), array->size(), ++seed);
  }
  std::vector<ExtendRow> rows(static_cast<size_t>(c.sequences));
  for (int64_t i = 0; i < c.sequences; ++i) {
    ExtendRow& row = rows[static_cast<size_t>(i)];
    row.first = row.key_row = static_cast<int32_t>(i * c.length);
    row.count = row.key_end = static_cast<int32_t>(c.length);
  }
  const DeviceArray<ExtendRow> device_rows(rows);
  ExtendAttentionArgs args;
  args.q = {q.data(), DType::kBF16, tokens, c.heads * (kNope + kRope)};
  args.kv = {kv.data(), DType::kBF16, tokens, c.heads * (kNope + kValue)};
  args.k_rope = {rope.data(), DType::kBF16, tokens, kRope};
  args.rows = device_rows.data();
  args.host_rows = rows.data();
  args.num_rows = c.sequences;
  args.heads = c.heads;
  args.nope = kNope;
  args.value = kValue;
  args.scale = 0.07F;
  args.out = {out.data(), DType::kBF16, tokens, c.heads * kValue};
  const double us = device::cuda::testing::time_us(
      stream, [&] { extend_attention(stream, args); }, 20, 3);
  // As is usual for causal attention: half of the full square.
  const double flops = static_cast<double>(c.sequences * c.heads * c.length * c.length) *
                       static_cast<double>(kNope + kRope + kValue);
  fmt::print("{:>5} {:>5} {:>6} {:>9.1f} {:>9.1f} {:>7.0f} {:>7.0f}\n", c.heads, c.sequences, c.length, us,
             c.peer_us, flops / us * 1e-6, c.peer_us > 0 ? flops / c.peer_us * 1e-6 : 0);
}

int run() {
  device::cuda::Stream* stream = device::cuda::testing::test_stream();
  if (stream == nullptr) {
    fmt::print("no GPU\n");
    return 1;
  }
  fmt::print("{}, bf16, causal\nheads  seqs length        us    FA3 us TFLOP/s     FA3\n",
             stream->gpu().name);
  for (const Case& c : kCases) measure(*stream, c);
  return 0;
}

}  // namespace
}  // namespace fathom::ops::cuda

int main() {
  return fathom::ops::cuda::run();
}
