#include "engine/verify.h"

#include <cstdio>
#include <vector>

#include "app/args.h"
#include "app/serving.h"
#include "base/log.h"

namespace fathom::app {
namespace {

// float32: the sums of the golden run and ours are ordered differently; over the depth of these models that
// stays below 2e-3 of logits of order 10. bfloat16 rounds each activation to 8 bits: judged by the
// distribution, not the logit.
constexpr double kFloat32Tolerance = 2e-3;
constexpr double kBf16MedianKl = 5e-3;
// On a GPU activations are stored as bfloat16 between the ops, which the float32 goldens are not. The
// yardstick is the reference implementation in the same format: transformers in bfloat16 has a median
// of 2.3e-2 on the case v3.
constexpr double kGpuBf16MedianKl = 2.3e-2;
// With a cache of FP8, latents have 3 or 2 bits after the point. The yardstick is the same: transformers with
// its latents rounded so has 0.29 and 1.17 on the case v3 (0.035 and 0.15 on v3_fp8, whose heads are those of
// the released models). Here the rotary part is rounded after its rotation: up to 0.43 and 1.05.
constexpr double kFp8E4m3MedianKl = 0.5;
constexpr double kFp8E5m2MedianKl = 1.2;

// With activations of FP8 in the products: transformers whose linears round their inputs so has a median of
// 0.15 on the case v3_fp8, and 0.11 where kv_b does not, as here.
constexpr double kFp8ActivationsMedianKl = 0.15;

double usual_median_kl(const engine::EngineOptions& options) {
  switch (options.load.kv_dtype) {
    case device::DType::kF8E4M3:
      return kFp8E4m3MedianKl;
    case device::DType::kF8E5M2:
      return kFp8E5m2MedianKl;
    default:
      return options.fp8_activations ? kFp8ActivationsMedianKl
             : options.cuda          ? kGpuBf16MedianKl
                                     : kBf16MedianKl;
  }
}

}  // namespace

int run_verify(const VerifyArgs& args) {
  set_log_level(LogLevel::kWarning);
  // Exact, but for the order of sums.
  const bool float32 = args.model.dtype == "float32" && !args.model.kv_cache_dtype.starts_with("fp8");
  const double tolerance = args.tolerance > 0 ? args.tolerance : (float32 ? kFloat32Tolerance : 0.0);
  engine::ModelFacts facts;
  const auto options = engine::resolve(engine_settings(args.model), &facts);
  const double usual_kl = options.ok() ? usual_median_kl(*options) : kBf16MedianKl;
  const double max_kl = args.max_kl > 0 ? args.max_kl : (float32 ? 0.0 : usual_kl);
  auto cases = engine::verify(engine_settings(args.model), args.golden);
  if (!cases.ok()) {
    std::fprintf(stderr, "fathom verify: %s\n", cases.error().message.c_str());
    return 1;
  }
  bool passed = true;
  std::vector<double> divergences;  // at every position of every prompt
  for (const auto& c : *cases) {
    divergences.insert(divergences.end(), c.kl.begin(), c.kl.end());
    const bool logits_good = tolerance == 0.0 || c.worst_error <= tolerance;
    // In bfloat16 near-equal choices may fall either way, so the greedy tokens are shown and judged in
    // float32 only.
    const bool greedy_good = c.first_difference < 0 || !float32;
    passed = passed && logits_good && greedy_good;
    std::printf(
        "%s  %s: worst error %.3g (position %lld, token %lld), KL worst %.3g median %.3g, %lld logits; ",
        logits_good && greedy_good ? "ok  " : "FAIL", c.name.c_str(), c.worst_error,
        static_cast<long long>(c.worst_position), static_cast<long long>(c.worst_token), c.worst_kl,
        c.median_kl, static_cast<long long>(c.compared));
    if (c.first_difference < 0) {
      std::printf("greedy: all %lld tokens equal\n", static_cast<long long>(c.greedy_tokens));
    } else {
      std::printf("greedy: token %lld of %lld differs (expected %d, got %d)\n",
                  static_cast<long long>(c.first_difference), static_cast<long long>(c.greedy_tokens),
                  c.expected, c.got);
    }
  }
  const double median_kl = engine::median(divergences);
  passed = passed && (max_kl == 0.0 || median_kl <= max_kl);
  std::printf("%s (dtype %s%s%s)\n", passed ? "verified" : "FAILED",
              args.model.dtype == "float32" ? "float32" : "bfloat16",
              tolerance > 0 ? fmt::format(", worst error at most {:.3g}", tolerance).c_str() : "",
              max_kl > 0 ? fmt::format(", median KL {:.3g}, at most {:.3g}", median_kl, max_kl).c_str() : "");
  return passed ? 0 : 1;
}

}  // namespace fathom::app
