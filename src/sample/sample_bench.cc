// Time to choose the tokens of a batch at DeepSeek's vocabulary. `sample_sample_bench [threads] [rows]`.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "base/random.h"
#include "sample/sampler.h"
#include "sample/testing.h"

using namespace fathom;
using sample::Choice;

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const int64_t rows = argc > 2 ? std::atoi(argv[2]) : 64;
  constexpr int64_t kVocab = 129280;
  constexpr int kRepeats = 15;
  ThreadPool pool(threads);

  // As a language model's: most tokens far below a few likely ones.
  std::vector<float> source(static_cast<size_t>(rows * kVocab));
  for (size_t i = 0; i < source.size(); ++i) {
    const float u = random_uniform(1, 0, i) + 1e-7F;
    source[i] = 2.5F * std::sqrt(-2.0F * std::log(u)) * std::cos(6.2831853F * random_uniform(1, 1, i));
    if (u > 0.9997F) source[i] += 12.0F;
  }
  struct Case {
    const char* name;
    SamplingParams sampling;
    LogprobParams logprobs;
  };
  const Case cases[] = {
      {"greedy", Choice{.temperature = 0.0F}, {}},
      {"temperature 1", Choice{}, {}},
      {"top_p 0.95", Choice{.temperature = 0.6F, .top_p = 0.95F}, {}},
      {"top_k 50, top_p 0.9", Choice{.top_p = 0.9F, .top_k = 50}, {}},
      {"min_p 0.05", Choice{.min_p = 0.05F}, {}},
      {"top_p 0.95, temperature 3 (flat)", Choice{.temperature = 3.0F, .top_p = 0.95F}, {}},
      {"greedy, penalties, 20 logprobs", Choice{.temperature = 0.0F, .repetition_penalty = 1.1F},
       sample::output_logprobs(20)},
  };
  std::printf("%lld rows of %lld, %d threads\n", static_cast<long long>(rows), static_cast<long long>(kVocab),
              threads);
  for (const Case& each : cases) {
    SlotInit init;
    init.sampling = each.sampling;
    init.logprobs = each.logprobs;
    for (int32_t i = 0; i < 1000; ++i) init.prompt.push_back(i * 97);
    const sample::SlotSampler slot(init);
    const std::vector<const sample::SlotSampler*> slots(static_cast<size_t>(rows), &slot);
    std::vector<TokenOutput> outputs(static_cast<size_t>(rows));
    double fastest = 1e300;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      std::vector<float> logits = source;
      const device::Tensor tensor{logits.data(), device::DType::kF32, {rows, kVocab}};
      const auto start = std::chrono::steady_clock::now();
      sample::sample_rows(pool, tensor, slots, {}, outputs);
      const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
      fastest = std::min(fastest, took.count());
    }
    std::printf("  %-34s %8.2f ms a step, %6.1f us a row and thread\n", each.name, fastest,
                1000.0 * fastest * threads / static_cast<double>(rows));
  }
}
