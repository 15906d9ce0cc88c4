#include "engine/bench_ops.h"

#include <algorithm>
#include <numeric>

#include "base/random.h"
#include "device/cuda/graph.h"
#include "device/cuda/memory.h"
#include "device/cuda/probe.h"
#include "engine/gpu.h"
#include "ops/extend_attention/cuda.h"
#include "ops/gate/cuda.h"
#include "ops/linear/cuda.h"
#include "ops/linear/cuda_packing.h"
#include "ops/mla_decode/cuda.h"
#include "ops/moe/cuda.h"
#include "ops/rms_norm/cuda.h"
#include "sample/cuda/gpu_sampler.h"

namespace fathom::engine {
namespace {

using device::DType;
using device::cuda::DeviceBuffer;
using ops::cuda::Matrix;
using ops::cuda::Weight;

constexpr int64_t kPool = int64_t{4} << 30;  // random bytes that operands are cut from
constexpr int64_t kTurn = int64_t{200}
                          << 20;  // bytes between uses of the same operand: more than the L2 cache

class Bench {
 public:
  static Result<std::unique_ptr<Bench>> create(std::function<void(const OpFigure&)> each) {
    std::unique_ptr<Bench> bench(new Bench(std::move(each)));
    FATHOM_ASSIGN(const auto gpu, device::cuda::open_gpu(0));
    FATHOM_ASSIGN(bench->stream_, device::cuda::Stream::create(gpu));
    FATHOM_ASSIGN(bench->pool_, DeviceBuffer::allocate(kPool));
    FATHOM_ASSIGN(bench->out_, DeviceBuffer::allocate(size_t{1} << 30));
    FATHOM_ASSIGN(bench->ints_, DeviceBuffer::allocate(size_t{64} << 20));
    FATHOM_ASSIGN(bench->start_, device::cuda::Event::create(true));
    FATHOM_ASSIGN(bench->stop_, device::cuda::Event::create(true));
    ops::cuda::random_rows(*bench->stream_, bench->pool_.data(), DType::kBF16,
                           {0, kPool / 4096, 0, 2048, 2048}, 1, 0.5F, 1.0F);
    FATHOM_TRY(bench->stream_->synchronize());
    return bench;
  }

  device::cuda::Stream& stream() { return *stream_; }
  OpCeilings ceilings;

  // Microseconds of call(i), i counting up through a graph of calls.
  Result<double> time(double guess_us, const std::function<void(int64_t)>& call) {
    const auto calls = static_cast<int64_t>(std::clamp(3000.0 / guess_us, 2.0, 300.0));
    call(0);
    FATHOM_TRY(stream_->synchronize());
    FATHOM_ASSIGN(const auto graph, device::cuda::Graph::capture(*stream_, [&] {
                    for (int64_t i = 0; i < calls; ++i) call(i);
                  }));
    std::vector<double> times;
    for (int replay = 0; replay < 6; ++replay) {
      stream_->record(start_);
      graph.launch(*stream_);
      stream_->record(stop_);
      FATHOM_TRY(stream_->synchronize());
      FATHOM_ASSIGN(const double seconds, stop_.seconds_since(start_));
      if (replay > 0) times.push_back(seconds * 1e6 / static_cast<double>(calls));
    }
    std::nth_element(times.begin(), times.begin() + 2, times.end());
    return times[2];
  }

  void report(OpFigure figure, double bytes, double flops) {
    figure.gbs = bytes / figure.us * 1e-3;
    figure.tflops = flops / figure.us * 1e-6;
    figure.share = std::max(figure.gbs / ceilings.read_gbs, figure.tflops / ceilings.bf16_tflops);
    each_(figure);
  }

  // Operand `i` of so many bytes: another place of the pool each time until kTurn bytes went by.
  const void* operand(int64_t bytes, int64_t i) const {
    const int64_t size = (bytes + 1023) / 1024 * 1024;
    const int64_t places =
        std::max<int64_t>(1, std::min((kPool - (int64_t{256} << 20)) / size, (kTurn + size - 1) / size + 1));
    return static_cast<const std::byte*>(pool_.data()) + i % places * size;
  }
  // Activations: the pool's end, which no weight reaches.
  void* activations() const { return static_cast<std::byte*>(pool_.data()) + kPool - (int64_t{256} << 20); }
  void* out() const { return out_.data(); }
  Result<int32_t*> upload(const std::vector<int32_t>& values, int64_t offset = 0) {
    auto* to = static_cast<int32_t*>(ints_.data()) + offset;
    FATHOM_TRY(device::cuda::check(cudaMemcpy(to, values.data(), values.size() * 4, cudaMemcpyHostToDevice),
                                   "upload"));
    return to;
  }

 private:
  explicit Bench(std::function<void(const OpFigure&)> each) : each_(std::move(each)) {}

  std::function<void(const OpFigure&)> each_;
  std::unique_ptr<device::cuda::Stream> stream_;
  DeviceBuffer pool_, out_, ints_;
  device::cuda::Event start_, stop_;
};

struct LinearCase {
  int64_t n, k, rows;
  double peer_us;
};

// Activations in FP8: any bits.
ops::cuda::QuantizedMatrix rounded_activations(const Bench& bench, int64_t rows, int64_t k) {
  auto* bits = static_cast<uint8_t*>(bench.activations());
  return {bits, reinterpret_cast<float*>(bits), rows, k, k, rows};
}

// Random bf16 bits make poor E4M3 values (NaN among them); they cost what others do. `rounded`: activations
// in FP8.
Result<void> bench_linear(Bench& bench, DType type, bool rounded, const char* peer,
                          std::span<const LinearCase> cases) {
  for (const auto& c : cases) {
    const int64_t bytes = c.n * c.k * device::size_of(type);
    const auto* scales = static_cast<const float*>(bench.activations());
    OpFigure figure;
    FATHOM_ASSIGN(figure.us, bench.time(static_cast<double>(bytes) / 2e6 + 5.0, [&](int64_t i) {
      Weight weight{bench.operand(bytes, i), scales, type, c.n, c.k, c.k, 1, rounded, rounded};
      weight.parted = weight.pays_in_parts();
      ops::cuda::linear(bench.stream(), {.x = Matrix(bench.activations(), DType::kBF16, c.rows, c.k),
                                         .y = Matrix(bench.out(), DType::kBF16, c.rows, c.n),
                                         .weight = &weight,
                                         .x8 = rounded_activations(bench, c.rows, c.k)});
    }));
    figure.op = type == DType::kBF16 ? "linear bf16" : rounded ? "linear fp8 x fp8" : "linear fp8";
    figure.shape = fmt::format("{} x {}, {} rows", c.n, c.k, c.rows);
    figure.peer = peer;
    figure.peer_us = c.peer_us;
    bench.report(figure, static_cast<double>(bytes + c.rows * (c.n + c.k) * 2),
                 2.0 * static_cast<double>(c.n * c.k * c.rows));
  }
  return {};
}

struct ExpertCase {
  const char* name;
  int64_t experts, top_k, n, k, tokens;
  DType type;
  const char* peer;
  double peer_us;
};

Result<void> bench_experts(Bench& bench, bool rounded, std::span<const ExpertCase> cases) {
  for (const auto& c : cases) {
    // Each token takes top_k different experts at random.
    std::vector<int32_t> counts(static_cast<size_t>(c.experts));
    for (int64_t t = 0; t < c.tokens; ++t) {
      std::vector<int32_t> deck(static_cast<size_t>(c.experts));
      std::iota(deck.begin(), deck.end(), 0);
      for (int64_t k = 0; k < c.top_k; ++k) {
        const auto pick =
            static_cast<int64_t>(random_bits(7, static_cast<uint64_t>(t), static_cast<uint64_t>(k)) %
                                 static_cast<uint64_t>(c.experts - k));
        std::swap(deck[static_cast<size_t>(k)], deck[static_cast<size_t>(k + pick)]);
        ++counts[static_cast<size_t>(deck[static_cast<size_t>(k)])];
      }
    }
    std::vector<int32_t> offsets{0};
    int64_t hit = 0;
    for (const int32_t count : counts) {
      offsets.push_back(offsets.back() + count);
      hit += count > 0 ? 1 : 0;
    }
    FATHOM_ASSIGN(const int32_t* device_offsets, bench.upload(offsets));
    const int64_t rows = c.tokens * c.top_k;
    const int64_t bytes = c.experts * c.n * c.k * device::size_of(c.type);
    const int64_t read = hit * c.n * c.k * device::size_of(c.type);
    OpFigure figure;
    FATHOM_ASSIGN(figure.us, bench.time(static_cast<double>(read) / 2e6 + 10.0, [&](int64_t i) {
      const Weight weight{bench.operand(bytes, i),
                          static_cast<const float*>(bench.activations()),
                          c.type,
                          c.n,
                          c.k,
                          c.k,
                          c.experts,
                          rounded,
                          rounded};
      ops::cuda::grouped_linear(bench.stream(),
                                {.linear = {.x = Matrix(bench.activations(), DType::kBF16, rows, c.k),
                                            .y = Matrix(bench.out(), DType::kBF16, rows, c.n),
                                            .weight = &weight,
                                            .x8 = rounded_activations(bench, rows, c.k)},
                                 .offsets = device_offsets,
                                 .max_rows = rows});
    }));
    figure.op = c.type == DType::kBF16 ? "experts bf16" : rounded ? "experts fp8 x fp8" : "experts fp8";
    figure.shape = fmt::format("{}, {} tokens, {} experts hit", c.name, c.tokens, hit);
    figure.peer = c.peer;
    figure.peer_us = c.peer_us;
    bench.report(figure, static_cast<double>(read + rows * (c.n + c.k) * 2),
                 2.0 * static_cast<double>(c.n * c.k * rows));
  }
  return {};
}

struct DecodeCase {
  int64_t heads, batch, context;
  double peer_us;
};

Result<void> bench_decode(Bench& bench, std::span<const DecodeCase> cases) {
  constexpr int64_t kWidth = 576;
  constexpr int64_t kPage = 64;
  for (const auto& c : cases) {
    const int64_t pages = c.context / kPage;
    const int64_t cache_bytes = c.batch * c.context * kWidth * 2;
    std::vector<int32_t> tables(static_cast<size_t>(c.batch * pages));
    std::iota(tables.begin(), tables.end(), 0);
    std::vector<int32_t> slots(static_cast<size_t>(c.batch));
    std::iota(slots.begin(), slots.end(), 0);
    const std::vector<int32_t> positions(static_cast<size_t>(c.batch), static_cast<int32_t>(c.context - 1));
    FATHOM_ASSIGN(const int32_t* device_tables, bench.upload(tables));
    FATHOM_ASSIGN(const int32_t* device_slots, bench.upload(slots, 1 << 20));
    FATHOM_ASSIGN(const int32_t* device_positions, bench.upload(positions, 2 << 20));
    FATHOM_ASSIGN(const auto workspace,
                  DeviceBuffer::allocate(static_cast<size_t>(ops::cuda::mla_decode_workspace(
                      bench.stream().gpu(), c.batch, c.heads, 512, c.context))));
    OpFigure figure;
    FATHOM_ASSIGN(figure.us, bench.time(static_cast<double>(cache_bytes) / 2e6 + 10.0, [&](int64_t i) {
      ops::cuda::MlaDecodeArgs args;
      args.q = Matrix(bench.activations(), DType::kBF16, c.batch, c.heads * kWidth);
      args.cache = {const_cast<void*>(bench.operand(cache_bytes, i)), DType::kBF16, kPage, kWidth};
      args.batch.tokens = c.batch;
      args.batch.positions = device_positions;
      args.batch.slots = device_slots;
      args.batch.block_tables = device_tables;
      args.batch.table_stride = pages;
      args.heads = c.heads;
      args.latent = 512;
      args.scale = 0.07F;
      args.max_context = c.context;
      args.workspace = workspace.data();
      args.out = Matrix(bench.out(), DType::kBF16, c.batch, c.heads * 512);
      ops::cuda::mla_decode(bench.stream(), args);
    }));
    figure.op = "mla_decode bf16";
    figure.shape = fmt::format("{} heads, batch {}, {} places", c.heads, c.batch, c.context);
    figure.peer = "FlashMLA";
    figure.peer_us = c.peer_us;
    bench.report(figure, static_cast<double>(cache_bytes + c.batch * c.heads * (kWidth + 512) * 2),
                 2.0 * static_cast<double>(c.batch * c.heads * c.context * (kWidth + 512)));
  }
  return {};
}

Result<void> bench_extend(Bench& bench) {
  struct Case {
    int32_t heads;
    double peer_us;
  };
  constexpr int32_t kTokens = 4096;
  const ops::cuda::ExtendRow row{0, kTokens, 0, 0, 0, kTokens, 0, 0};
  FATHOM_ASSIGN(const auto device_row, DeviceBuffer::allocate(sizeof(row)));
  FATHOM_TRY(device::cuda::check(cudaMemcpy(device_row.data(), &row, sizeof(row), cudaMemcpyHostToDevice),
                                 "upload"));
  for (const Case& c : {Case{16, 162.0}, Case{128, 1037.0}}) {
    OpFigure figure;
    FATHOM_ASSIGN(figure.us, bench.time(1000.0, [&](int64_t i) {
      const int64_t q_bytes = int64_t{kTokens} * c.heads * 192 * 2;
      const int64_t kv_bytes = int64_t{kTokens} * c.heads * 256 * 2;
      auto* base =
          static_cast<std::byte*>(const_cast<void*>(bench.operand(q_bytes + kv_bytes + kTokens * 128, i)));
      ops::cuda::ExtendAttentionArgs args;
      args.q = Matrix(base, DType::kBF16, kTokens, c.heads * 192);
      args.kv = Matrix(base + q_bytes, DType::kBF16, kTokens, c.heads * 256);
      args.k_rope = Matrix(base + q_bytes + kv_bytes, DType::kBF16, kTokens, 64);
      args.rows = static_cast<const ops::cuda::ExtendRow*>(device_row.data());
      args.host_rows = &row;
      args.num_rows = 1;
      args.heads = c.heads;
      args.nope = 128;
      args.value = 128;
      args.scale = 0.07F;
      args.out = Matrix(bench.out(), DType::kBF16, kTokens, c.heads * 128);
      ops::cuda::extend_attention(bench.stream(), args);
    }));
    figure.op = "extend_attention bf16";
    figure.shape = fmt::format("{} heads, {} tokens, 192/128", c.heads, kTokens);
    figure.peer = "FlashAttention-3";
    figure.peer_us = c.peer_us;
    bench.report(figure, 0.0, static_cast<double>(c.heads) * kTokens * kTokens * (192 + 128));
  }
  return {};
}

Result<void> bench_small(Bench& bench) {
  constexpr int64_t kRows = 128;
  constexpr int64_t kWidth = 7168;
  auto* floats = static_cast<float*>(bench.activations());
  OpFigure norm;
  FATHOM_ASSIGN(norm.us, bench.time(5.0, [&](int64_t) {
    ops::cuda::add_rms_norm(bench.stream(), {.residual = static_cast<float*>(bench.out()),
                                             .delta = Matrix(bench.activations(), DType::kF32, kRows, kWidth),
                                             .weight = floats,
                                             .eps = 1e-6F,
                                             .y = Matrix(static_cast<float*>(bench.out()) + kRows * kWidth,
                                                         DType::kBF16, kRows, kWidth)});
  }));
  norm.op = "add_rms_norm";
  norm.shape = fmt::format("[{}, {}], float32 residual", kRows, kWidth);
  norm.peer = "Triton, norm alone";
  norm.peer_us = 3.9;
  bench.report(norm, static_cast<double>(kRows * kWidth) * 14.0, 0.0);

  OpFigure gate;
  ops::GateParams params;
  params.scoring = ops::GateParams::Scoring::kSigmoid;
  params.method = ops::GateParams::Method::kNoAuxTc;
  params.experts = 256;
  params.top_k = 8;
  params.groups = 8;
  params.top_groups = 4;
  params.normalise = true;
  FATHOM_ASSIGN(gate.us, bench.time(5.0, [&](int64_t) {
    ops::cuda::gate(bench.stream(), {.logits = floats,
                                     .bias = floats,
                                     .params = params,
                                     .tokens = kRows,
                                     .ids = static_cast<int32_t*>(bench.out()),
                                     .weights = static_cast<float*>(bench.out()) + 65536});
  }));
  gate.op = "gate";
  gate.shape = fmt::format("{} tokens, 256 experts, noaux_tc", kRows);
  bench.report(gate, static_cast<double>(kRows) * 256 * 4, 0.0);
  return {};
}

// A gate's product, choice and sort in one launch; its peer is the same in two calls, measured here.
Result<void> bench_gate_products(Bench& bench) {
  using Params = ops::GateParams;
  struct Case {
    int32_t experts, top_k, groups, top_groups;
    int64_t k;
    Params::Scoring scoring;
    Params::Method method;
  };
  constexpr Case kCases[] = {
      {64, 6, 1, 1, 2048, Params::Scoring::kSoftmax, Params::Method::kGreedy},
      {160, 6, 8, 3, 5120, Params::Scoring::kSoftmax, Params::Method::kGroupLimitedGreedy},
      {256, 8, 8, 4, 7168, Params::Scoring::kSigmoid, Params::Method::kNoAuxTc},
  };
  FATHOM_ASSIGN(const auto workspace,
                DeviceBuffer::allocate(static_cast<size_t>(ops::cuda::gate_product_workspace(256))));
  bench.stream().fill(workspace.data(), 0xff, workspace.size());
  auto* ints = static_cast<int32_t*>(bench.out());
  auto* floats = static_cast<float*>(bench.out()) + 65536;
  for (const Case& c : kCases) {
    for (const int64_t tokens : {1, 4, 16}) {
      Params params;
      params.scoring = c.scoring;
      params.method = c.method;
      params.experts = c.experts;
      params.top_k = c.top_k;
      params.groups = c.groups;
      params.top_groups = c.top_groups;
      const auto call = [&](bool together, int64_t i) {
        const int64_t bytes = int64_t{c.experts} * c.k * 2;
        const Weight weight{.data = bench.operand(bytes, i),
                            .dtype = DType::kBF16,
                            .n = c.experts,
                            .k = c.k,
                            .k_stride = c.k,
                            .parted = true};
        const ops::cuda::LinearArgs product{.x = Matrix(bench.activations(), DType::kBF16, tokens, c.k),
                                            .y = Matrix(floats, DType::kF32, tokens, c.experts),
                                            .weight = &weight};
        const bool biased = c.method == Params::Method::kNoAuxTc;
        const ops::cuda::GateArgs gate{
            .logits = floats,
            .bias = biased ? static_cast<const float*>(bench.activations()) : nullptr,
            .params = params,
            .tokens = tokens,
            .ids = ints,
            .weights = floats + 65536};
        const ops::cuda::ExpertSortArgs sort{.ids = ints,
                                             .tokens = tokens,
                                             .experts = c.experts,
                                             .top_k = c.top_k,
                                             .sort = {ints + 1024, ints + 2048, ints + 4096}};
        if (together) {
          ops::cuda::gate_product_and_sort(bench.stream(), product, gate, sort,
                                           static_cast<uint64_t*>(workspace.data()));
        } else {
          ops::cuda::linear(bench.stream(), product);
          ops::cuda::gate_and_sort(bench.stream(), gate, sort);
        }
      };
      OpFigure figure;
      FATHOM_ASSIGN(figure.us, bench.time(5.0, [&](int64_t i) { call(true, i); }));
      FATHOM_ASSIGN(figure.peer_us, bench.time(8.0, [&](int64_t i) { call(false, i); }));
      figure.op = "gate_product_and_sort";
      figure.shape = fmt::format("{} x {}, {} tokens", c.experts, c.k, tokens);
      figure.peer = "linear, gate_and_sort";
      bench.report(figure, static_cast<double>(c.experts * c.k * 2), 0.0);
    }
  }
  return {};
}

Result<void> bench_sampling(Bench& bench) {
  constexpr int64_t kRows = 128;
  constexpr int64_t kVocab = 129280;
  device::cuda::DeviceArena arena;
  FATHOM_ASSIGN(const auto sampler, sample::cuda::GpuSampler::create(
                                        bench.stream(), arena, {static_cast<int32_t>(kRows), kVocab, kRows}));
  std::vector<int32_t> slots(kRows);
  std::iota(slots.begin(), slots.end(), 0);
  FATHOM_ASSIGN(const int32_t* device_slots, bench.upload(slots));
  FATHOM_ASSIGN(auto* last, bench.upload(slots, 4096));
  for (const bool greedy : {true, false}) {
    for (int32_t slot = 0; slot < kRows; ++slot) {
      SlotInit init;
      init.sampling.temperature = greedy ? 0.0F : 1.0F;
      init.sampling.top_k = greedy ? -1 : 50;
      init.sampling.top_p = greedy ? 1.0F : 0.9F;
      init.sampling.seed = static_cast<uint64_t>(slot);
      FATHOM_TRY(sampler->open(slot, init));
    }
    sampler->flush();
    OpFigure figure;
    FATHOM_ASSIGN(figure.us, bench.time(60.0, [&](int64_t i) {
      sample::cuda::SampleArgs args;
      args.logits = static_cast<const float*>(bench.operand(kRows * kVocab * 4, i));
      args.adjusted = static_cast<float*>(bench.out());
      args.rows = kRows;
      args.row_slots = device_slots;
      args.last_tokens = last;
      args.tokens = last + 4096;
      args.draws = !greedy;
      sampler->sample(args);
    }));
    figure.op = "sample";
    figure.shape = fmt::format("[{}, {}], {}", kRows, kVocab, greedy ? "greedy" : "top-k 50, top-p 0.9");
    figure.peer = greedy ? "torch argmax" : "torch top-k";
    figure.peer_us = greedy ? 42.0 : 294.6;
    bench.report(figure, static_cast<double>(kRows * kVocab) * 4.0, 0.0);
  }
  return {};
}

constexpr LinearCase kBf16Cases[] = {
    {3072, 2048, 1, 7.38},      {3072, 2048, 16, 8.35},     {3072, 2048, 64, 8.16},
    {576, 2048, 1, 6.55},       {576, 2048, 16, 5.98},      {576, 2048, 64, 5.99},
    {4096, 512, 1, 4.54},       {4096, 512, 64, 4.71},      {2048, 2048, 1, 6.54},
    {2048, 2048, 16, 6.55},     {2048, 2048, 64, 6.73},     {21888, 2048, 1, 34.94},
    {21888, 2048, 16, 34.78},   {21888, 2048, 64, 37.47},   {2048, 10944, 1, 19.95},
    {2048, 10944, 16, 21.83},   {2048, 10944, 64, 23.04},   {102400, 2048, 1, 150.30},
    {102400, 2048, 16, 154.38}, {102400, 2048, 64, 157.53}, {3648, 2048, 4096, 0},
    {5632, 2048, 4096, 0},
};
constexpr LinearCase kFp8WeightCases[] = {
    {2112, 7168, 1, 0},   {2112, 7168, 128, 0},  {7168, 16384, 1, 0},
    {7168, 16384, 16, 0}, {7168, 16384, 128, 0}, {7168, 16384, 4096, 0},
};
// The faster of DeepGEMM and cuBLAS.
constexpr LinearCase kFp8Cases[] = {
    {2112, 7168, 1, 13.6},    {2112, 7168, 16, 11.0},    {2112, 7168, 64, 10.3},
    {2112, 7168, 128, 11.0},  {2112, 7168, 512, 15.6},   {2112, 7168, 4096, 101.4},
    {24576, 1536, 1, 17.8},   {24576, 1536, 16, 18.4},   {24576, 1536, 64, 17.9},
    {24576, 1536, 128, 19.6}, {24576, 1536, 512, 36.3},  {24576, 1536, 4096, 244.1},
    {7168, 16384, 1, 44.5},   {7168, 16384, 16, 44.5},   {7168, 16384, 64, 45.8},
    {7168, 16384, 128, 47.0}, {7168, 16384, 512, 104.9}, {7168, 16384, 4096, 673.7},
    {4096, 7168, 1, 16.8},    {4096, 7168, 16, 14.4},    {4096, 7168, 64, 14.3},
    {4096, 7168, 128, 14.8},  {4096, 7168, 512, 25.0},   {4096, 7168, 4096, 172.3},
    {7168, 2048, 1, 9.3},     {7168, 2048, 16, 8.6},     {7168, 2048, 64, 8.7},
    {7168, 2048, 128, 9.7},   {7168, 2048, 512, 16.8},   {7168, 2048, 4096, 94.7},
    {36864, 7168, 1, 92.1},   {36864, 7168, 16, 93.0},   {36864, 7168, 64, 94.8},
    {36864, 7168, 128, 98.4}, {36864, 7168, 512, 225.9}, {36864, 7168, 4096, 1644.2},
    {7168, 18432, 1, 51.1},   {7168, 18432, 16, 49.8},   {7168, 18432, 64, 50.4},
    {7168, 18432, 128, 51.3}, {7168, 18432, 512, 117.2}, {7168, 18432, 4096, 761.1},
};
constexpr ExpertCase kExpertCases[] = {
    {"64 of 2816 x 2048", 64, 6, 2816, 2048, 1, DType::kBF16, "torch._grouped_mm", 41.4},
    {"64 of 2816 x 2048", 64, 6, 2816, 2048, 16, DType::kBF16, "torch._grouped_mm", 222.6},
    {"64 of 2816 x 2048", 64, 6, 2816, 2048, 128, DType::kBF16, "torch._grouped_mm", 291.9},
    {"64 of 2816 x 2048", 64, 6, 2816, 2048, 4096, DType::kBF16, "torch._grouped_mm", 545.3},
    {"64 of 2048 x 1408", 64, 6, 2048, 1408, 1, DType::kBF16, "torch._grouped_mm", 27.1},
    {"64 of 2048 x 1408", 64, 6, 2048, 1408, 16, DType::kBF16, "torch._grouped_mm", 127.3},
    {"64 of 2048 x 1408", 64, 6, 2048, 1408, 128, DType::kBF16, "torch._grouped_mm", 157.4},
    {"64 of 2048 x 1408", 64, 6, 2048, 1408, 4096, DType::kBF16, "torch._grouped_mm", 292.0},
};
constexpr ExpertCase kFp8ExpertCases[] = {
    {"32 of 4096 x 7168", 32, 8, 4096, 7168, 16, DType::kF8E4M3, "DeepGEMM, 4 rows each", 331.5},
    {"32 of 4096 x 7168", 32, 8, 4096, 7168, 256, DType::kF8E4M3, "DeepGEMM, 64 rows each", 330.8},
    {"8 of 4096 x 7168", 8, 1, 4096, 7168, 4096, DType::kF8E4M3, "DeepGEMM, 512 rows each", 202.6},
    {"32 of 7168 x 2048", 32, 8, 7168, 2048, 16, DType::kF8E4M3, "DeepGEMM, 4 rows each", 177.9},
    {"32 of 7168 x 2048", 32, 8, 7168, 2048, 256, DType::kF8E4M3, "DeepGEMM, 64 rows each", 177.8},
    {"8 of 7168 x 2048", 8, 1, 7168, 2048, 4096, DType::kF8E4M3, "DeepGEMM, 512 rows each", 108.4},
};
constexpr DecodeCase kDecodeCases[] = {
    {16, 1, 1024, 10.9},   {16, 1, 4096, 22.9},    {16, 16, 1024, 16.9},    {16, 16, 4096, 35.9},
    {16, 64, 1024, 36.9},  {16, 64, 4096, 111.6},  {16, 128, 1024, 57.5},   {16, 128, 4096, 208.5},
    {128, 1, 1024, 14.4},  {128, 1, 4096, 20.8},   {128, 16, 1024, 24.2},   {128, 16, 4096, 47.5},
    {128, 64, 1024, 40.2}, {128, 128, 1024, 75.3}, {128, 128, 4096, 246.6},
};

}  // namespace

Result<void> bench_ops(const std::function<void(const OpCeilings&)>& begin,
                       const std::function<void(const OpFigure&)>& each) {
  if (!gpu_available())
    return error(ErrorCode::kUnavailable, "this machine has no NVIDIA GPU that Fathom runs on");
  FATHOM_ASSIGN(const auto bench, Bench::create(each));
  FATHOM_ASSIGN(auto probe, device::cuda::Probe::create());
  bench->ceilings.read_gbs = probe.read_bandwidth(bench->stream());
  bench->ceilings.bf16_tflops = probe.bf16_peak(bench->stream()) * 1e-3;
  begin(bench->ceilings);
  FATHOM_TRY(bench_linear(*bench, DType::kBF16, false, "cuBLAS", kBf16Cases));
  FATHOM_TRY(bench_linear(*bench, DType::kF8E4M3, false, "", kFp8WeightCases));
  if (bench->stream().gpu().hopper())
    FATHOM_TRY(bench_linear(*bench, DType::kF8E4M3, true, "DeepGEMM, cuBLAS", kFp8Cases));
  FATHOM_TRY(bench_experts(*bench, false, kExpertCases));
  if (bench->stream().gpu().hopper()) FATHOM_TRY(bench_experts(*bench, true, kFp8ExpertCases));
  FATHOM_TRY(bench_decode(*bench, kDecodeCases));
  FATHOM_TRY(bench_extend(*bench));
  FATHOM_TRY(bench_small(*bench));
  FATHOM_TRY(bench_gate_products(*bench));
  return bench_sampling(*bench);
}

}  // namespace fathom::engine
