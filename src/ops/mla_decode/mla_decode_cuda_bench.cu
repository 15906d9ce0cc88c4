// Time and rates of mla_decode on the GPU at the shapes of V2-Lite (16 heads) and V3 (128), beside FlashMLA's
// on an H100:  ops_mla_decode_cuda_bench [bf16|f8] [heads [batch [length [queries of a sequence]]]]
#include <cuda_bf16.h>
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>

#include "base/math.h"
#include "device/cuda/testing.h"
#include "ops/mla_decode/cuda.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;

constexpr int64_t kLatent = 512, kWidth = 576, kPage = 64, kMostPlaces = 131072;

struct Case {
  int64_t heads, tokens, length;
  double peer_us;  // of FlashMLA, bf16; 0: not measured
};
constexpr Case kCases[] = {
    {16, 1, 1024, 10.9},    {16, 1, 4096, 22.9},    {16, 1, 8192, 25.8},     {16, 16, 1024, 16.9},
    {16, 16, 4096, 35.9},   {16, 16, 8192, 60.9},   {16, 64, 1024, 36.9},    {16, 64, 4096, 111.6},
    {16, 64, 8192, 212.8},  {16, 128, 1024, 57.5},  {16, 128, 4096, 208.5},  {16, 128, 8192, 409.8},
    {128, 1, 1024, 14.4},   {128, 1, 4096, 20.8},   {128, 1, 8192, 26.2},    {128, 16, 1024, 24.2},
    {128, 16, 4096, 47.5},  {128, 16, 8192, 75.8},  {128, 64, 1024, 40.2},   {128, 64, 4096, 125.8},
    {128, 64, 8192, 239.6}, {128, 128, 1024, 75.3}, {128, 128, 4096, 246.6}, {128, 128, 8192, 518.8},
    {32, 1, 1024, 0},       {32, 16, 1024, 0},      {32, 16, 4096, 0},       {32, 64, 4096, 0},
    {32, 128, 1024, 0},     {32, 128, 4096, 0},     {64, 1, 1024, 0},        {64, 16, 4096, 0},
    {64, 128, 1024, 0},     {64, 128, 4096, 0},     {128, 4, 1024, 0},       {128, 4, 4096, 0},
    {128, 1, 32768, 0},     {128, 1, 65536, 0},     {128, 1, 131072, 0},     {128, 4, 65536, 0},
    {128, 8, 32768, 0},     {128, 8, 65536, 0},     {128, 32, 32768, 0},
};

__global__ void fill_bf16(__nv_bfloat16* to, int64_t count, uint32_t seed) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    uint32_t bits = static_cast<uint32_t>(i) * 2654435761U + seed;
    bits = (bits ^ (bits >> 15)) * 2246822519U;
    bits = (bits ^ (bits >> 13)) * 3266489917U;
    to[i] = __float2bfloat16(static_cast<float>(bits >> 8) * 0x1p-22F - 2.0F);
  }
}
// Bytes whose magnitudes are far from the formats' NaNs.
__global__ void fill_f8(uint8_t* to, int64_t count, uint32_t seed) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    uint32_t bits = static_cast<uint32_t>(i) * 2654435761U + seed;
    bits = (bits ^ (bits >> 15)) * 2246822519U;
    to[i] = static_cast<uint8_t>((bits >> 24 & 0x80) | (24 + (bits >> 8 & 0xff) % 40));
  }
}

// `each`: queries of a sequence; its last places', as when guesses are verified.
void measure(device::cuda::Stream& stream, const Case& c, DType dtype, const DeviceArray<uint8_t>& cache,
             int64_t each) {
  // Several layers in turn, more than the L2 cache holds.
  const int64_t pages_each = ceil_div(c.length, kPage);
  const int64_t entry = kWidth * device::size_of(dtype);
  const int64_t layer_bytes = c.tokens * pages_each * kPage * entry;
  const int64_t layers = std::clamp<int64_t>((int64_t{200} << 20) / layer_bytes, 2, 96);
  const int64_t pages = c.tokens * pages_each;
  FATHOM_CHECK(layers * layer_bytes <= cache.size(), "{} bytes", layers * layer_bytes);
  const DeviceArray<__nv_bfloat16> q(c.tokens * c.heads * kWidth), out(c.tokens * c.heads * kLatent);
  if (dtype == DType::kBF16)
    fill_bf16<<<1024, 256, 0, stream.handle()>>>(reinterpret_cast<__nv_bfloat16*>(cache.data()),
                                                 layers * layer_bytes / 2, 1);
  else
    fill_f8<<<1024, 256, 0, stream.handle()>>>(cache.data(), layers * layer_bytes, 1);
  fill_bf16<<<1024, 256, 0, stream.handle()>>>(q.data(), q.size(), 2);
  std::vector<int32_t> tables(static_cast<size_t>(pages)), positions, slots;
  for (int64_t i = 0; i < pages; ++i) tables[static_cast<size_t>(i)] = static_cast<int32_t>(i * 7919 % pages);
  if (pages % 7919 == 0) std::iota(tables.begin(), tables.end(), 0);
  for (int64_t t = 0; t < c.tokens; ++t) {
    positions.push_back(static_cast<int32_t>(c.length - each + t % each));
    slots.push_back(static_cast<int32_t>(t / each));
  }
  const DeviceArray<int32_t> device_tables(tables), device_positions(positions), device_slots(slots);
  const DeviceArray<uint8_t> workspace(
      mla_decode_workspace(stream.gpu(), c.tokens, c.heads, kLatent, kMostPlaces));

  MlaDecodeArgs args;
  args.q = {q.data(), DType::kBF16, c.tokens, c.heads * kWidth};
  args.batch.tokens = c.tokens;
  args.batch.positions = device_positions.data();
  args.batch.slots = device_slots.data();
  args.batch.block_tables = device_tables.data();
  args.batch.table_stride = pages_each;
  args.heads = c.heads;
  args.latent = kLatent;
  args.scale = 0.07F;
  args.settled = true;
  const int64_t brief = mla_decode_brief_context(stream.gpu(), c.tokens, c.heads);
  args.max_context = c.length <= brief ? brief : kMostPlaces;
  args.workspace = workspace.data();
  args.out = {out.data(), DType::kBF16, c.tokens, c.heads * kLatent};
  const auto run = [&](int64_t layer) {
    args.cache = {cache.data() + layer * layer_bytes, dtype, kPage, kWidth};
    mla_decode(stream, args);
  };
  FATHOM_CHECK(stream.synchronize().ok(), "{}", stream.status().error().message);
  for (int64_t i = 0; i < 2; ++i) run(i);
  cudaGraph_t graph;
  cudaGraphExec_t graph_exec;
  stream.note(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal), "capture");
  for (int64_t i = 0; i < layers; ++i) run(i);
  stream.note(cudaStreamEndCapture(stream.handle(), &graph), "capture");
  stream.note(cudaGraphInstantiate(&graph_exec, graph, 0), "instantiate");
  FATHOM_CHECK(stream.synchronize().ok(), "{}", stream.status().error().message);
  const double us =
      device::cuda::testing::time_us(
          stream, [&] { stream.note(cudaGraphLaunch(graph_exec, stream.handle()), "graph"); }, 9, 2) /
      static_cast<double>(layers);
  cudaGraphExecDestroy(graph_exec);
  cudaGraphDestroy(graph);
  const auto bytes = static_cast<double>(c.tokens * (c.length * entry + c.heads * (kWidth + kLatent) * 2));
  const double flops = 2.0 * static_cast<double>(c.tokens * c.length * c.heads * (kWidth + kLatent));
  const std::string peer =
      c.peer_us > 0 ? fmt::format("{:.1f} {:>6.2f}x", c.peer_us, c.peer_us / us) : std::string("-       -");
  fmt::print("{:>5} {:>6} {:>6} {:>9.1f} {:>17} {:>7.0f} {:>7.0f}\n", c.heads, c.tokens, c.length, us, peer,
             bytes / us * 1e-3, flops / us * 1e-6);
}

int run(int argc, char** argv) {
  device::cuda::Stream* stream = device::cuda::testing::test_stream();
  if (stream == nullptr) {
    fmt::print("no GPU\n");
    return 1;
  }
  const DType dtype = argc > 1 && std::strcmp(argv[1], "f8") == 0 ? DType::kF8E4M3 : DType::kBF16;
  fmt::print("{}, cache {}\nheads  batch length        us   FlashMLA  ratio    GB/s  TFLOP/s\n",
             stream->gpu().name, device::to_string(dtype));
  // One for all cases: what memory is pieced together from what others gave back shows in the times.
  const DeviceArray<uint8_t> cache(2 * int64_t{128 * 8192} * kWidth * device::size_of(dtype));
  const auto asked = [&](int at, int64_t value) {
    return argc <= at || std::strcmp(argv[at], "-") == 0 || std::atoll(argv[at]) == value;
  };
  for (const Case& c : kCases) {
    if (asked(2, c.heads) && asked(3, c.tokens) && asked(4, c.length))
      measure(*stream, c, dtype, cache, argc > 5 ? std::atoll(argv[5]) : 1);
  }
  return 0;
}

}  // namespace
}  // namespace fathom::ops::cuda

int main(int argc, char** argv) {
  return fathom::ops::cuda::run(argc, argv);
}
