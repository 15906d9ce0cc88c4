// Time and rates of mla_decode at the shapes of V2-Lite and V3:  ops_mla_decode_bench [threads] [isa]
#include "ops/mla_decode/mla_decode.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "base/math.h"
#include "base/random.h"
#include "device/arena.h"

namespace fathom::ops {
namespace {

struct Case {
  const char* name;
  int64_t heads;
  int64_t sequences, length;
  device::DType dtype;
};

void measure(const Case& c, MlaDecodeFunction function, device::Launch& launch) {
  constexpr int64_t kLatent = 512, kWidth = 576, kPage = 64;
  const int64_t pages_each = ceil_div(c.length, kPage);
  // Several layers' worth of cache in turn, so that what one call leaves in the processor's caches does not
  // serve the next.
  const int64_t entry_bytes = kWidth * device::size_of(c.dtype);
  const int64_t bytes = c.sequences * c.length * entry_bytes;
  const int64_t layers = std::max<int64_t>(1, (int64_t{96} << 20) / bytes);
  const int64_t pages = layers * c.sequences * pages_each;
  auto memory = device::Buffer::allocate(static_cast<size_t>(pages * kPage * entry_bytes));
  FATHOM_CHECK(memory.ok(), "{}", memory.error().message);
  KvCache cache{memory->data(), c.dtype, pages, kPage, kWidth};
  for (int64_t i = 0; i < pages * kPage * kWidth; ++i) {
    const float value = random_uniform(1, 2, static_cast<uint64_t>(i)) - 0.5F;
    if (c.dtype == device::DType::kBF16)
      static_cast<uint16_t*>(cache.data)[i] = device::f32_to_bf16(value);
    else
      static_cast<float*>(cache.data)[i] = value;
  }
  std::vector<float> q(static_cast<size_t>(c.sequences * c.heads * kWidth), 0.25F);
  std::vector<float> out(static_cast<size_t>(c.sequences * c.heads * kLatent));
  std::vector<int32_t> table(static_cast<size_t>(pages));
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i);

  double best = 1e30;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
  for (int64_t layer = 0; std::chrono::steady_clock::now() < deadline; layer = (layer + 1) % layers) {
    std::vector<AttentionRow> rows;
    for (int64_t s = 0; s < c.sequences; ++s) {
      rows.push_back({static_cast<int32_t>(s), 1, static_cast<int32_t>(c.length - 1),
                      table.data() + (layer * c.sequences + s) * pages_each});
    }
    MlaDecodeArgs args;
    args.q = device::Tensor(q.data(), device::DType::kF32, {c.sequences, c.heads, kWidth});
    args.cache = cache;
    args.rows = rows;
    args.latent = kLatent;
    args.scale = 1.0F / std::sqrt(192.0F);
    args.out = device::Tensor(out.data(), device::DType::kF32, {c.sequences, c.heads, kLatent});
    const auto begin = std::chrono::steady_clock::now();
    function(launch, args);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  const double flops = 2.0 * static_cast<double>(c.sequences * c.length * c.heads * (kWidth + kLatent));
  fmt::print("{:<26} {:>4} seqs x {:>6}  {:>9.1f} us  {:>7.2f} GB/s of cache  {:>7.1f} GFLOP/s\n", c.name,
             c.sequences, c.length, best * 1e6, static_cast<double>(bytes) / best * 1e-9,
             flops / best * 1e-9);
}

int run(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : static_cast<int>(available_cpus().size());
  const auto isa = device::choose_isa(argc > 2 ? argv[2] : "auto");
  if (threads < 1 || !isa.ok()) {
    fmt::print(stderr, "usage: ops_mla_decode_bench [threads >= 1] [isa]\n");
    return 2;
  }
  device::Target target;
  target.isa = *isa;
  fmt::print("{} threads, {}, best of 1.5 s\n", threads, to_string(target.isa));
  ThreadPool pool(threads);
  device::Launch launch(pool);
  constexpr auto kBF16 = device::DType::kBF16;
  for (const Case& c : {Case{"V2-Lite, 16 heads, bf16", 16, 1, 128, kBF16},
                        {"V2-Lite, 16 heads, bf16", 16, 1, 1024, kBF16},
                        {"V2-Lite, 16 heads, f32", 16, 1, 1024, device::DType::kF32},
                        {"V2-Lite, 16 heads, bf16", 16, 16, 1024, kBF16},
                        {"V2-Lite, 16 heads, bf16", 16, 1, 32768, kBF16},
                        {"V3, 128 heads, bf16", 128, 1, 1024, kBF16},
                        {"V3, 128 heads, bf16", 128, 4, 4096, kBF16}}) {
    measure(c, choose_mla_decode(target, Compute::kBF16), launch);
  }
  return 0;
}

}  // namespace
}  // namespace fathom::ops

int main(int argc, char** argv) {
  return fathom::ops::run(argc, argv);
}
