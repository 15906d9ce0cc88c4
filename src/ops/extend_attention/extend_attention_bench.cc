// Rates of extend_attention's own part (kv_b is projected by a stand-in that costs nothing) and of
// mha_attention, at V2-Lite's shape:  ops_extend_attention_bench [threads] [isa]
#include "ops/extend_attention/extend_attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "base/math.h"
#include "base/random.h"
#include "ops/mha_attention/mha_attention.h"

namespace fathom::ops {
namespace {

constexpr int64_t kHeads = 16, kLatent = 512, kRope = 64, kNope = 128, kValue = 128, kPage = 64;

struct Case {
  int64_t prefix, tokens;
};

template <class Call>
double best_of(const Call& call) {
  double best = 1e30;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
  do {
    const auto begin = std::chrono::steady_clock::now();
    call();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  } while (std::chrono::steady_clock::now() < deadline);
  return best;
}

std::vector<uint16_t> random_cache(int64_t count) {
  std::vector<uint16_t> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = device::f32_to_bf16(random_uniform(1, 2, static_cast<uint64_t>(i)) - 0.5F);
  }
  return values;
}

void measure(const Case& c, const device::Target& target, device::Launch& launch) {
  const int64_t places = c.prefix + c.tokens, pages = ceil_div(places, kPage);
  std::vector<int32_t> table(static_cast<size_t>(pages));
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i);
  const AttentionRow row{0, static_cast<int32_t>(c.tokens), static_cast<int32_t>(c.prefix), table.data()};
  std::vector<float> q(static_cast<size_t>(c.tokens * kHeads * (kNope + kRope)), 0.25F);
  std::vector<float> out(static_cast<size_t>(c.tokens * kHeads * kValue));
  const device::Tensor query(q.data(), device::DType::kF32, {c.tokens, kHeads, kNope + kRope});
  const device::Tensor result(out.data(), device::DType::kF32, {c.tokens, kHeads, kValue});
  const float scale = 1.0F / std::sqrt(192.0F);
  const auto seen =
      static_cast<double>(c.tokens) * (static_cast<double>(c.prefix) + static_cast<double>(c.tokens + 1) / 2);
  const double flops = 2.0 * seen * kHeads * (kNope + kRope + kValue);
  const auto report = [&](const char* name, double seconds) {
    fmt::print("{:<18} {:>6} tokens after {:>6}  {:>9.2f} ms  {:>7.1f} GFLOP/s\n", name, c.tokens, c.prefix,
               seconds * 1e3, flops / seconds * 1e-9);
  };

  auto latents = random_cache(pages * kPage * (kLatent + kRope));
  PackedLinear kv_b;
  ExtendAttentionArgs extend;
  extend.q = query;
  extend.cache = {latents.data(), device::DType::kBF16, pages, kPage, kLatent + kRope};
  extend.rows = std::span(&row, 1);
  extend.kv_b = &kv_b;
  extend.linear = [](device::Launch&, const LinearArgs&) {};
  extend.latent = kLatent;
  extend.nope = kNope;
  extend.value = kValue;
  extend.scale = scale;
  extend.out = result;
  // Zeroes where the stand-in leaves the projection, so that no denormal or NaN slows the arithmetic.
  std::fill_n(launch.outer_scratch(size_t{64} << 20), size_t{64} << 20, std::byte{0});
  const auto run_extend = choose_extend_attention(target);
  report("extend_attention", best_of([&] { run_extend(launch, extend); }));

  auto plain = random_cache(pages * kPage * kHeads * (kNope + kRope + kValue));
  MhaAttentionArgs mha;
  mha.q = query;
  mha.cache = {plain.data(), device::DType::kBF16, pages, kPage, kHeads * (kNope + kRope + kValue)};
  mha.rows = extend.rows;
  mha.value = kValue;
  mha.scale = scale;
  mha.out = result;
  const auto run_mha = choose_mha_attention(target);
  report("mha_attention", best_of([&] { run_mha(launch, mha); }));
}

int run(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : static_cast<int>(available_cpus().size());
  const auto isa = device::choose_isa(argc > 2 ? argv[2] : "auto");
  if (threads < 1 || !isa.ok()) {
    fmt::print(stderr, "usage: ops_extend_attention_bench [threads >= 1] [isa]\n");
    return 2;
  }
  device::Target target;
  target.isa = *isa;
  fmt::print("{} threads, {}, V2-Lite's 16 heads, best of 1.5 s\n", threads, to_string(target.isa));
  ThreadPool pool(threads);
  device::Launch launch(pool);
  for (const Case& c : {Case{0, 512}, {0, 1024}, {4096, 512}, {1023, 1}}) measure(c, target, launch);
  return 0;
}

}  // namespace
}  // namespace fathom::ops

int main(int argc, char** argv) {
  return fathom::ops::run(argc, argv);
}
