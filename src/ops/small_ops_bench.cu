// Times the GPU's ops that surround the products, at V3's sizes: microseconds in a replayed graph over
// buffers that together are larger than the L2 cache, and bytes moved.
#include <fmt/core.h>

#include <functional>
#include <random>

#include "device/cuda/testing.h"
#include "ops/gate/cuda.h"
#include "ops/kv_write/cuda.h"
#include "ops/moe/cuda.h"
#include "ops/rms_norm/cuda.h"
#include "ops/rope/cuda.h"
#include "ops/swiglu/cuda.h"

namespace {

using namespace fathom;             // NOLINT
using namespace fathom::ops::cuda;  // NOLINT
using device::DType;
using device::cuda::Stream;
using device::cuda::testing::DeviceArray;
using device::cuda::testing::test_stream;

constexpr int64_t kHidden = 7168, kLatent = 512, kHalf = 32, kHeads = 128, kQHead = 192, kExperts = 256,
                  kTopK = 8, kExpertHidden = 2048;

// bf16 or float32 values of order one.
std::vector<uint16_t> random_halves(int64_t count) {
  std::mt19937 random(1);
  std::vector<uint16_t> values(static_cast<size_t>(count));
  for (auto& value : values)
    value = static_cast<uint16_t>(0x3f00U + random() % 0x100U + (random() % 2U) * 0x8000U);
  return values;
}
std::vector<float> random_floats(int64_t count) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// `op(i)` works on the i-th set of buffers.
void report(const char* name, int64_t tokens, int sets, int64_t bytes, const std::function<void(int)>& op) {
  Stream& stream = *test_stream();
  constexpr int kCalls = 40;
  op(0);
  FATHOM_CHECK(stream.synchronize().ok(), "{}", name);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  stream.note(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal), name);
  for (int i = 0; i < kCalls; ++i) op(i % sets);
  stream.note(cudaStreamEndCapture(stream.handle(), &graph), name);
  stream.note(cudaGraphInstantiate(&executable, graph, 0), name);
  const double us =
      device::cuda::testing::time_us(
          stream, [&] { stream.note(cudaGraphLaunch(executable, stream.handle()), name); }, 10) /
      kCalls;
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  fmt::print("{:24} T {:5}  {:8.2f} us  {:7.1f} GB/s\n", name, tokens, us,
             static_cast<double>(bytes) / us / 1e3);
}

int sets_for(int64_t bytes) {
  return static_cast<int>(std::clamp<int64_t>((int64_t{100} << 20) / std::max<int64_t>(bytes, 1), 1, 40));
}

void bench_norm(int64_t tokens) {
  const int64_t bytes = tokens * kHidden * (4 + 4 + 2 + 2);
  const int sets = sets_for(bytes);
  const int64_t n = tokens * kHidden;
  const DeviceArray<float> residual(random_floats(n * sets)), weight(random_floats(kHidden));
  const DeviceArray<uint16_t> delta(random_halves(n * sets)), y(n * sets);
  report("add_rms_norm", tokens, sets, bytes, [&](int i) {
    AddRmsNormArgs args;
    args.residual = residual.data() + i * n;
    args.delta = {delta.data() + i * n, DType::kBF16, tokens, kHidden};
    args.weight = weight.data();
    args.y = {y.data() + i * n, DType::kBF16, tokens, kHidden};
    add_rms_norm(*test_stream(), args);
  });
  report("rms_norm 1536", tokens, 1, tokens * 1536 * 4, [&](int) {
    const Matrix x(y.data(), DType::kBF16, tokens, 1536);
    rms_norm(*test_stream(), {x, x, weight.data(), 1e-6F});
  });
}

void bench_attention_inputs(int64_t tokens) {
  constexpr int64_t kPositions = 4096, kWidth = kLatent + 2 * kHalf;
  const DeviceArray<float> cos(random_floats(kPositions * kHalf)), sin(random_floats(kPositions * kHalf)),
      weight(random_floats(kLatent));
  const DeviceArray<uint16_t> q(random_halves(tokens * kHeads * kQHead)),
      kv_a(random_halves(tokens * kWidth)), cache(tokens * kWidth), absorbed(tokens * kHeads * kWidth);
  std::vector<int32_t> positions;
  std::vector<int64_t> places;
  for (int64_t t = 0; t < tokens; ++t) {
    positions.push_back(static_cast<int32_t>(t % kPositions));
    places.push_back(tokens - 1 - t);
  }
  const DeviceArray<int32_t> device_positions(positions);
  const DeviceArray<int64_t> device_places(places);
  RopeArgs rope_args;
  rope_args.x = {q.data(), DType::kBF16, tokens, kHeads * kQHead};
  rope_args.heads = kHeads;
  rope_args.width = kQHead;
  rope_args.y = {absorbed.data(), DType::kBF16, tokens, kHeads * kWidth};
  rope_args.y_head_stride = kWidth;
  rope_args.y_offset = kLatent;
  rope_args.positions = device_positions.data();
  rope_args.table = {cos.data(), sin.data(), kHalf};
  report("rope", tokens, 1, tokens * kHeads * kHalf * 2 * 4, [&](int) { rope(*test_stream(), rope_args); });
  LatentWriteArgs args;
  args.kv_a = {kv_a.data(), DType::kBF16, tokens, kWidth};
  args.norm_weight = weight.data();
  args.rope = rope_args.table;
  args.batch.tokens = tokens;
  args.batch.positions = device_positions.data();
  args.batch.places = device_places.data();
  args.cache = {cache.data(), DType::kBF16, 64, kWidth};
  report("latent_write", tokens, 1, tokens * kWidth * 4, [&](int) { latent_write(*test_stream(), args); });
  report("rope and latent", tokens, 1, tokens * (kHeads * kHalf * 8 + kWidth * 4),
         [&](int) { rope_and_latent_write(*test_stream(), rope_args, args); });
}

void bench_moe(int64_t tokens) {
  const DeviceArray<float> logits(random_floats(tokens * kExperts)), bias(random_floats(kExperts));
  const DeviceArray<int32_t> ids(tokens * kTopK), offsets(kExperts + 1), sorted(tokens * kTopK),
      places(tokens * kTopK), workspace(expert_sort_workspace(tokens, kExperts, kTopK));
  const DeviceArray<float> weights(tokens * kTopK);
  GateArgs gate_args;
  gate_args.logits = logits.data();
  gate_args.bias = bias.data();
  gate_args.params = {.scoring = ops::GateParams::Scoring::kSigmoid,
                      .method = ops::GateParams::Method::kNoAuxTc,
                      .experts = kExperts,
                      .top_k = kTopK,
                      .groups = 8,
                      .top_groups = 4,
                      .normalise = true,
                      .scaling = 2.5F};
  gate_args.tokens = tokens;
  gate_args.ids = ids.data();
  gate_args.weights = weights.data();
  report("gate noaux_tc", tokens, 1, tokens * kExperts * 4, [&](int) { gate(*test_stream(), gate_args); });
  ExpertSortArgs sort_args;
  sort_args.ids = ids.data();
  sort_args.tokens = tokens;
  sort_args.experts = kExperts;
  sort_args.top_k = kTopK;
  sort_args.sort = {offsets.data(), sorted.data(), places.data()};
  sort_args.workspace = workspace.data();
  report("expert_sort", tokens, 1, tokens * kTopK * 12, [&](int) { expert_sort(*test_stream(), sort_args); });

  const int64_t row_bytes = tokens * kHidden * 2 * (kTopK + 2);
  const int sets = sets_for(row_bytes);
  const int64_t n = tokens * kHidden;
  const DeviceArray<uint16_t> rows(random_halves(n * kTopK * sets)), shared(random_halves(n)), y(n * sets);
  report("expert_combine", tokens, sets, row_bytes, [&](int i) {
    ExpertCombineArgs args;
    args.rows = {rows.data() + i * n * kTopK, DType::kBF16, tokens * kTopK, kHidden};
    args.weights = weights.data();
    args.places = places.data();
    args.top_k = kTopK;
    args.shared = {shared.data(), DType::kBF16, tokens, kHidden};
    args.y = {y.data() + i * n, DType::kBF16, tokens, kHidden};
    expert_combine(*test_stream(), args);
  });

  const int64_t copies = tokens * kTopK;
  const int64_t swiglu_bytes = copies * kExpertHidden * 6;
  const int swiglu_sets = sets_for(swiglu_bytes);
  const int64_t m = copies * kExpertHidden;
  const DeviceArray<uint16_t> gate_up(random_halves(2 * m * swiglu_sets)), hidden(m * swiglu_sets);
  report("swiglu", tokens, swiglu_sets, swiglu_bytes, [&](int i) {
    swiglu(*test_stream(), {{gate_up.data() + i * 2 * m, DType::kBF16, copies, 2 * kExpertHidden},
                            {hidden.data() + i * m, DType::kBF16, copies, kExpertHidden},
                            nullptr});
  });
}

// From a norm to the sorted copies, as in a step: the norm alone, with the gate's product, with all of it,
// and that in one launch.
void bench_gate_product(const char* model, const ops::GateParams& params, int64_t k, int64_t tokens) {
  const int64_t experts = params.experts, bytes = experts * k * 2;
  const int sets = sets_for(bytes);
  const DeviceArray<uint16_t> weights(random_halves(experts * k * sets)), x(tokens * k);
  const DeviceArray<float> residual(random_floats(tokens * k)), norm(random_floats(k)),
      bias(random_floats(experts)), logits(tokens * experts), chosen(tokens * params.top_k);
  const DeviceArray<int32_t> ids(tokens * params.top_k), offsets(experts + 1), sorted(tokens * params.top_k),
      places(tokens * params.top_k);
  const DeviceArray<uint64_t> workspace(gate_product_workspace(params.experts) / 8);  // all 0xff
  const auto run = [&](int parts, int i) {
    Stream& stream = *test_stream();
    const Matrix normed(x.data(), DType::kBF16, tokens, k);
    add_rms_norm(
        stream, {.residual = residual.data(), .delta = {}, .weight = norm.data(), .eps = 1e-6F, .y = normed});
    if (parts == 0) return;
    const Weight weight{.data = weights.data() + i * experts * k,
                        .dtype = DType::kBF16,
                        .n = experts,
                        .k = k,
                        .k_stride = k,
                        .parted = true};
    const LinearArgs product{
        .x = normed, .y = {logits.data(), DType::kF32, tokens, experts}, .weight = &weight};
    const bool biased = params.method == ops::GateParams::Method::kNoAuxTc;
    const GateArgs gate_args{.logits = logits.data(),
                             .bias = biased ? bias.data() : nullptr,
                             .params = params,
                             .tokens = tokens,
                             .ids = ids.data(),
                             .weights = chosen.data()};
    const ExpertSortArgs sort_args{.ids = ids.data(),
                                   .tokens = tokens,
                                   .experts = params.experts,
                                   .top_k = params.top_k,
                                   .sort = {offsets.data(), sorted.data(), places.data()}};
    if (parts == 1) {
      gate_product_and_sort(stream, product, gate_args, sort_args, workspace.data());
      return;
    }
    linear(stream, product);
    if (parts == 2) gate_and_sort(stream, gate_args, sort_args);
  };
  const auto row = [&](const char* what, int parts) {
    report(fmt::format("{} {}", model, what).c_str(), tokens, sets, parts > 0 ? bytes : 0,
           [&](int i) { run(parts, i); });
  };
  row("norm", 0);
  row("norm, product", 3);
  row("and gate, sort", 2);
  row("in one launch", 1);
}

}  // namespace

int main() {
  if (test_stream() == nullptr) {
    fmt::print("no GPU\n");
    return 1;
  }
  for (const int64_t tokens : {1, 16, 128, 256, 4096}) {
    bench_norm(tokens);
    bench_attention_inputs(tokens);
    bench_moe(tokens);
  }
  for (const int64_t tokens : {1, 2, 4, 8, 16}) {
    bench_gate_product("V2-Lite", {.experts = 64, .top_k = 6}, 2048, tokens);
    bench_gate_product("V2",
                       {.method = ops::GateParams::Method::kGroupLimitedGreedy,
                        .experts = 160,
                        .top_k = 6,
                        .groups = 8,
                        .top_groups = 3},
                       5120, tokens);
    bench_gate_product("V3",
                       {.scoring = ops::GateParams::Scoring::kSigmoid,
                        .method = ops::GateParams::Method::kNoAuxTc,
                        .experts = 256,
                        .top_k = 8,
                        .groups = 8,
                        .top_groups = 4,
                        .normalise = true},
                       7168, tokens);
  }
  FATHOM_CHECK(test_stream()->status().ok(), "{}", test_stream()->status().error().message);
  return 0;
}
