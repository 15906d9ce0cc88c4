#include "sample/cuda/gpu_sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "base/random.h"
#include "device/cuda/testing.h"
#include "sample/logprobs.h"
#include "sample/ref.h"
#include "sample/sampler.h"
#include "sample/testing.h"

namespace fathom::sample::cuda {
namespace {

using device::cuda::DeviceArena;
using device::cuda::Stream;
using device::cuda::testing::DeviceArray;
using device::cuda::testing::test_stream;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float uniform(uint64_t stream, uint64_t i) {
  return random_uniform(11, stream, i);
}

enum class Shape { kSmooth, kPeaked, kTies, kBanned, kFlat, kVeryPeaked };
constexpr Shape kShapes[] = {Shape::kSmooth, Shape::kPeaked, Shape::kTies,
                             Shape::kBanned, Shape::kFlat,   Shape::kVeryPeaked};

std::vector<float> make_logits(int64_t vocab, uint64_t stream, Shape shape) {
  std::vector<float> logits(static_cast<size_t>(vocab));
  for (size_t i = 0; i < logits.size(); ++i) {
    const float u = uniform(stream, 2 * i);
    logits[i] = 8.0F * (u + uniform(stream, 2 * i + 1) - 1.0F);
    if (shape == Shape::kPeaked) logits[i] = logits[i] * 2.0F + (u > 0.9995F ? 12.0F : 0.0F);
    if (shape == Shape::kTies) logits[i] = std::round(logits[i]);
    if (shape == Shape::kBanned && u < 0.7F && i > 0) logits[i] = -kInfinity;
    if (shape == Shape::kFlat) logits[i] = 1.25F;
    if (shape == Shape::kVeryPeaked) logits[i] = logits[i] * 30.0F;
  }
  return logits;
}

struct Sampling {
  std::unique_ptr<DeviceArena> arena;
  std::unique_ptr<GpuSampler> sampler;
};
Sampling make_sampler(int32_t slots, int64_t vocab, int64_t rows) {
  Sampling setup;
  setup.arena = std::make_unique<DeviceArena>(size_t{8} << 20);
  setup.sampler = std::move(GpuSampler::create(*test_stream(), *setup.arena, {slots, vocab, rows})).value();
  return setup;
}

#define SKIP_WITHOUT_GPU() \
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU"

// Whether `got` is what `draw` falls on in these adjusted logits, or a neighbour that is as near as the
// rounding of sums can tell.
bool possible(const std::vector<float>& logits, const SamplingParams& params, int64_t index, int32_t got) {
  const auto distribution =
      reference_distribution(logits.data(), static_cast<int64_t>(logits.size()), params);
  const double draw = random_uniform(params.seed, 0, static_cast<uint64_t>(index));
  // The host's own sums are float32 in blocks: both sides may be off.
  constexpr double kSlack = 2e-6;
  double low = 0.0, high = 0.0;
  for (const auto& token : distribution) {
    low = high;
    high += token.probability;
    if (token.token == got) return draw >= low - kSlack && draw < high + kSlack;
  }
  return false;
}

// One sequence on the host: what the GPU's choice is compared with.
struct Sequence {
  SlotInit init;
  SlotSampler host;
  std::vector<uint32_t> mask;
};

SlotInit random_init(uint64_t stream, int64_t vocab) {
  uint64_t i = 0;
  const auto pick = [&](std::initializer_list<float> from) {
    return *(from.begin() + static_cast<int>(uniform(stream, i++) * static_cast<float>(from.size())));
  };
  const auto id = [&] { return static_cast<int32_t>(uniform(stream, i++) * static_cast<float>(vocab + 2)); };
  SlotInit init;
  SamplingParams& params = init.sampling;
  params.temperature = pick({1.0F, 0.7F, 2.5F, 0.1F, 0.0F, 1.0F, 30.0F, 1e-5F});
  params.top_k = static_cast<int32_t>(pick({-1.0F, -1.0F, 1.0F, 2.0F, 20.0F, 50.0F, 300.0F, 5000.0F, 1e6F}));
  params.top_p = pick({1.0F, 1.0F, 0.9F, 0.5F, 0.05F, 0.999F});
  params.min_p = pick({0.0F, 0.0F, 0.0F, 0.1F, 0.9F, 1.0F, 1e-4F});
  params.seed = stream * 1000 + 17;
  if (pick({0.0F, 0.0F, 1.0F}) == 1.0F) params.repetition_penalty = pick({1.3F, 0.7F, 2.0F});
  if (pick({0.0F, 0.0F, 1.0F}) == 1.0F) params.frequency_penalty = pick({0.5F, -1.5F, 2.0F});
  if (pick({0.0F, 0.0F, 1.0F}) == 1.0F) params.presence_penalty = pick({0.7F, -1.0F, 2.0F});
  const auto biases = static_cast<int>(pick({0.0F, 0.0F, 3.0F, 300.0F}));
  for (int b = 0; b < biases; ++b) params.logit_bias.emplace_back(id(), 20.0F * uniform(stream, i++) - 10.0F);
  std::sort(params.logit_bias.begin(), params.logit_bias.end());
  params.logit_bias.erase(std::unique(params.logit_bias.begin(), params.logit_bias.end(),
                                      [](const auto& a, const auto& b) { return a.first == b.first; }),
                          params.logit_bias.end());
  params.min_new_tokens = static_cast<int32_t>(pick({0.0F, 2.0F, 100.0F}));
  for (int k = 0; k < 5; ++k) params.stop_token_ids.push_back(id());
  for (int k = 0; k < 40; ++k) init.prompt.push_back(id());
  for (int k = static_cast<int>(pick({0.0F, 0.0F, 30.0F})); k > 0; --k) {
    init.output.push_back(std::min(id(), static_cast<int32_t>(vocab) - 1));
  }
  return init;
}

// A race checker takes a thousand times as long.
bool too_large(int64_t vocab) {
  return vocab > 70001 && std::getenv("FATHOM_TEST_SMALL") != nullptr;
}

TEST(GpuSampler, ChoosesAsTheHostDoes) {
  SKIP_WITHOUT_GPU();
  uint64_t number = 0;
  int64_t choices = 0, differing = 0;
  for (const int64_t vocab : {7, 129, 1000, 4100, 70001, 102400, 129280}) {
    if (too_large(vocab)) continue;
    const int32_t rows = vocab > 5000 ? 24 : 60;
    Sampling setup = make_sampler(rows + 3, vocab, rows);
    const auto words = static_cast<size_t>((vocab + 31) / 32);
    for (const Shape shape : kShapes) {
      std::vector<Sequence> sequences(static_cast<size_t>(rows));
      std::vector<int32_t> row_slots, mask_rows;
      std::vector<uint32_t> masks;
      for (int32_t r = 0; r < rows; ++r) {
        Sequence& sequence = sequences[static_cast<size_t>(r)];
        sequence.init = random_init(++number, vocab);
        sequence.host = SlotSampler(sequence.init);
        row_slots.push_back(r % 10 == 7 ? -1 : rows + 2 - r);
        if (r % 5 == 3) {
          mask_rows.push_back(static_cast<int32_t>(masks.size() / words));
          for (size_t w = 0; w < words; ++w) {
            sequence.mask.push_back(static_cast<uint32_t>(random_bits(5, number, w)) | (w == 0 ? 4U : 0U));
          }
          masks.insert(masks.end(), sequence.mask.begin(), sequence.mask.end());
        } else {
          mask_rows.push_back(-1);
        }
        if (row_slots.back() >= 0) {
          ASSERT_TRUE(setup.sampler->open(row_slots.back(), sequence.init).ok());
        }
      }
      setup.sampler->flush();
      const DeviceArray<int32_t> device_slots(row_slots), last_tokens(rows + 3), tokens(rows),
          device_mask_rows(mask_rows);
      const DeviceArray<uint32_t> device_masks(masks);
      DeviceArray<float> logits(rows * vocab);
      const DeviceArray<float> adjusted(rows * vocab);
      for (int step = 0; step < 3; ++step) {
        std::vector<float> all;
        for (int32_t r = 0; r < rows; ++r) {
          const auto row = make_logits(vocab, ++number, shape);
          all.insert(all.end(), row.begin(), row.end());
        }
        logits.set(all);
        SampleArgs args;
        args.logits = logits.data();
        args.adjusted = step == 1 ? logits.data() : adjusted.data();
        args.rows = rows;
        args.row_slots = device_slots.data();
        args.last_tokens = last_tokens.data();
        args.tokens = tokens.data();
        args.allowed = step == 2 ? device_masks.data() : nullptr;
        args.allowed_rows = device_mask_rows.data();
        setup.sampler->sample(args);
        const auto got = tokens.get();
        const auto last = last_tokens.get();
        if (step != 1) {
          ASSERT_EQ(logits.get(), all) << "the logits were to be kept";
        }
        for (int32_t r = 0; r < rows; ++r) {
          const auto at = static_cast<size_t>(r);
          if (row_slots[at] < 0) {
            ASSERT_EQ(got[at], -1);
            continue;
          }
          Sequence& sequence = sequences[at];
          std::vector<float> row(all.begin() + r * vocab, all.begin() + (r + 1) * vocab);
          if (sequence.host.adjusts()) sequence.host.adjust(row.data(), vocab, nullptr);
          if (step == 2 && !sequence.mask.empty()) {
            for (size_t i = 0; i < row.size(); ++i) {
              if ((sequence.mask[i / 32] >> (i % 32) & 1U) == 0) row[i] = -kInfinity;
            }
          }
          const SamplingParams& params = sequence.init.sampling;
          const int32_t want = choose_token(row.data(), vocab, params, sequence.host.generated());
          ++choices;
          if (got[at] != want) {
            ++differing;
            ASSERT_TRUE(!params.greedy() && possible(row, params, sequence.host.generated(), got[at]))
                << "vocab " << vocab << " shape " << static_cast<int>(shape) << " step " << step << " row "
                << r << ": " << got[at] << ", not " << want << "; temperature " << params.temperature
                << " top_k " << params.top_k << " top_p " << params.top_p << " min_p " << params.min_p;
          }
          ASSERT_EQ(last[static_cast<size_t>(row_slots[at])], got[at]);
          sequence.host.accept(got[at]);
        }
      }
    }
  }
  // Sums of different rounding: a draw of 24 bits is that near to a border once in some ten thousand.
  EXPECT_LE(differing, 2 + choices / 500) << "of " << choices;
}

// The budget's tokens come, the sequence's own go on afterwards as on the host, and a resumed sequence stands
// where it stood.
TEST(GpuSampler, ClosesThoughtsAsTheHostDoes) {
  SKIP_WITHOUT_GPU();
  constexpr int64_t kVocab = 1000;
  constexpr int32_t kRows = 12;
  Sampling setup = make_sampler(kRows, kVocab, kRows);
  std::vector<SlotInit> inits(kRows);
  std::vector<SlotSampler> hosts(kRows);
  std::vector<int32_t> slots;
  for (int32_t r = 0; r < kRows; ++r) {
    SlotInit& init = inits[static_cast<size_t>(r)];
    init.sampling.temperature = r % 2 == 0 ? 0.0F : 1.0F;
    init.sampling.seed = static_cast<uint64_t>(r);
    init.sampling.frequency_penalty = r % 3 == 0 ? 0.5F : 0.0F;
    init.sampling.thinking = {r % 4, 7, 8, r % 5 == 0 ? -1 : 9, r % 6 == 0 ? -1 : r % 2};
    hosts[static_cast<size_t>(r)] = SlotSampler(init);
    ASSERT_TRUE(setup.sampler->open(r, init).ok());
    slots.push_back(r);
  }
  const DeviceArray<int32_t> device_slots(slots), last(kRows), tokens(kRows);
  const DeviceArray<float> adjusted(kRows * kVocab);
  int forced = 0;
  for (int step = 0; step < 12; ++step) {
    std::vector<float> all;
    for (int32_t r = 0; r < kRows; ++r) {
      auto row = make_logits(kVocab, static_cast<uint64_t>(step * kRows + r), Shape::kSmooth);
      if (step == 8) row[7] = 100.0F;  // "<think>" again
      all.insert(all.end(), row.begin(), row.end());
    }
    const DeviceArray<float> logits(all);
    SampleArgs args;
    args.logits = logits.data();
    args.adjusted = adjusted.data();
    args.rows = kRows;
    args.row_slots = device_slots.data();
    args.last_tokens = last.data();
    args.tokens = tokens.data();
    setup.sampler->flush();
    setup.sampler->sample(args);
    const auto got = tokens.get();
    for (int32_t r = 0; r < kRows; ++r) {
      const auto at = static_cast<size_t>(r);
      const int32_t must = hosts[at].forced();
      if (must >= 0) {
        ++forced;
        ASSERT_EQ(got[at], must) << "row " << r << " step " << step;
      } else {
        std::vector<float> row(all.begin() + r * kVocab, all.begin() + (r + 1) * kVocab);
        if (hosts[at].adjusts()) hosts[at].adjust(row.data(), kVocab, nullptr);
        const SamplingParams& params = inits[at].sampling;
        const int32_t want = choose_token(row.data(), kVocab, params, hosts[at].generated());
        ASSERT_TRUE(got[at] == want || possible(row, params, hosts[at].generated(), got[at]));
      }
      hosts[at].accept(got[at]);
      inits[at].output.push_back(got[at]);
      if (step % 4 == 1) {  // preempted and resumed
        ASSERT_TRUE(setup.sampler->open(r, inits[at]).ok());
      }
    }
  }
  EXPECT_GT(forced, 2 * kRows);
}

std::vector<int32_t> run(GpuSampler& sampler, int64_t vocab, const std::vector<int32_t>& slots,
                         const std::vector<float>& logits, int32_t num_slots, bool draws = true) {
  const auto rows = static_cast<int64_t>(slots.size());
  FATHOM_CHECK_EQ(static_cast<int64_t>(logits.size()), rows * vocab);
  const DeviceArray<float> device_logits(logits);
  const DeviceArray<int32_t> device_slots(slots), last(num_slots), tokens(rows);
  SampleArgs args;
  args.logits = device_logits.data();
  args.adjusted = device_logits.data();
  args.rows = rows;
  args.row_slots = device_slots.data();
  args.last_tokens = last.data();
  args.tokens = tokens.data();
  args.draws = draws;
  sampler.sample(args);
  return tokens.get();
}

TEST(GpuSampler, ARequestsTokensDoNotDependOnTheBatch) {
  SKIP_WITHOUT_GPU();
  for (const int64_t vocab : {1000, 129280}) {
    if (too_large(vocab)) continue;
    for (const Shape shape : {Shape::kSmooth, Shape::kPeaked, Shape::kTies}) {
      const int32_t rows = 20;
      Sampling together = make_sampler(rows, vocab, rows), alone = make_sampler(rows, vocab, rows);
      std::vector<int32_t> slots(rows);
      std::iota(slots.begin(), slots.end(), 0);
      for (const int32_t slot : slots) {
        const SlotInit init = random_init(900 + static_cast<uint64_t>(slot), vocab);
        ASSERT_TRUE(together.sampler->open(slot, init).ok());
        ASSERT_TRUE(alone.sampler->open(slot, init).ok());
      }
      together.sampler->flush();
      alone.sampler->flush();
      for (uint64_t step = 0; step < 3; ++step) {
        std::vector<float> all;
        for (const int32_t slot : slots) {
          const auto row = make_logits(vocab, 7000 + 100 * step + static_cast<uint64_t>(slot), shape);
          all.insert(all.end(), row.begin(), row.end());
        }
        const auto batch = run(*together.sampler, vocab, slots, all, rows);
        for (const int32_t slot : slots) {
          const std::vector<float> row(all.begin() + slot * vocab, all.begin() + (slot + 1) * vocab);
          ASSERT_EQ(run(*alone.sampler, vocab, {slot}, row, rows)[0], batch[static_cast<size_t>(slot)])
              << "vocab " << vocab << " slot " << slot;
        }
      }
    }
  }
}

TEST(GpuSampler, GreedyNeedsOnlyTheFirstPass) {
  SKIP_WITHOUT_GPU();
  const int64_t vocab = 5003;
  Sampling setup = make_sampler(4, vocab, 4);
  for (int32_t slot = 0; slot < 4; ++slot) {
    SlotInit init;
    init.sampling.temperature = slot % 2 == 0 ? 0.0F : 1.0F;
    if (slot % 2 == 1) init.sampling.top_k = 1;
    ASSERT_TRUE(setup.sampler->open(slot, init).ok());
  }
  setup.sampler->flush();
  EXPECT_FALSE(setup.sampler->draws(std::vector<int32_t>{0, 1, -1, 2, 3}));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> logits(4 * static_cast<size_t>(vocab), -kInfinity);
  logits[4000] = logits[1234] = 3.0F;                                  // a tie
  std::fill(logits.begin() + vocab, logits.begin() + 2 * vocab, nan);  // nothing possible
  std::fill(logits.begin() + 2 * vocab, logits.begin() + 3 * vocab, nan);
  logits[static_cast<size_t>(2 * vocab + 77)] = -1.0F;
  logits[static_cast<size_t>(3 * vocab + 500)] = kInfinity;
  EXPECT_EQ(run(*setup.sampler, vocab, {0, 1, 2, 3}, logits, 4, false),
            (std::vector<int32_t>{1234, 0, 77, 500}));
}

TEST(GpuSampler, SurvivesLogitsThatAreNotNumbers) {
  SKIP_WITHOUT_GPU();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const int64_t vocab = 300;
  Sampling setup = make_sampler(4, vocab, 4);
  for (int32_t slot = 0; slot < 4; ++slot) {
    SlotInit init;
    init.sampling = Choice{.top_p = slot % 2 == 0 ? 0.9F : 1.0F};
    ASSERT_TRUE(setup.sampler->open(slot, init).ok());
  }
  setup.sampler->flush();
  std::vector<float> logits(4 * 300, nan);
  std::fill(logits.begin() + 300, logits.begin() + 600, -kInfinity);
  logits[600 + 123] = 1.0F;
  logits[900 + 200] = kInfinity;
  logits[900 + 100] = 1.0F;
  const auto got = run(*setup.sampler, vocab, {0, 1, 2, 3}, logits, 4);
  EXPECT_EQ(got, (std::vector<int32_t>{0, 0, 123, 200}));
}

// Chi-squared of many draws against the probabilities.
TEST(GpuSampler, DrawsEachTokenAsOftenAsItShould) {
  SKIP_WITHOUT_GPU();
  constexpr int64_t kVocab = 40;
  constexpr int32_t kRows = 256, kSteps = 100;
  const auto row = make_logits(kVocab, 99, Shape::kSmooth);
  std::vector<float> logits;
  for (int32_t r = 0; r < kRows; ++r) logits.insert(logits.end(), row.begin(), row.end());
  for (const SamplingParams params : {Choice{.temperature = 1.5F, .seed = 3},
                                      Choice{.temperature = 3.0F, .top_p = 0.9F, .top_k = 30, .seed = 4},
                                      Choice{.temperature = 2.0F, .min_p = 0.05F, .seed = 5}}) {
    Sampling setup = make_sampler(kRows, kVocab, kRows);
    std::vector<int32_t> slots;
    for (int32_t slot = 0; slot < kRows; ++slot) {
      SlotInit init;
      init.sampling = params;
      init.sampling.seed = params.seed * 1000 + static_cast<uint64_t>(slot);
      ASSERT_TRUE(setup.sampler->open(slot, init).ok());
      slots.push_back(slot);
    }
    setup.sampler->flush();
    std::vector<int64_t> counts(kVocab);
    for (int step = 0; step < kSteps; ++step) {
      for (const int32_t token : run(*setup.sampler, kVocab, slots, logits, kRows)) {
        ++counts[static_cast<size_t>(token)];
      }
    }
    double chi2 = 0.0;
    int64_t drawn = 0;
    const auto distribution = reference_distribution(row.data(), kVocab, params);
    for (const auto& token : distribution) {
      const double expected = token.probability * kRows * kSteps;
      const auto count = static_cast<double>(counts[static_cast<size_t>(token.token)]);
      chi2 += (count - expected) * (count - expected) / expected;
      drawn += counts[static_cast<size_t>(token.token)];
    }
    EXPECT_EQ(drawn, kRows * kSteps);
    // Mean k, variance 2k: five deviations.
    const auto freedom = static_cast<double>(distribution.size() - 1);
    EXPECT_LT(chi2, freedom + 5.0 * std::sqrt(2.0 * freedom));
  }
}

// Lists longer than a staging chunk, more opens than chunks hold, and a slot opened again at once.
TEST(GpuSampler, OpensAnyNumberOfSlotsInAStep) {
  SKIP_WITHOUT_GPU();
  const int64_t vocab = 200'000;
  Sampling setup = make_sampler(3, vocab, 3);
  SlotInit init;
  init.sampling.temperature = 0.0F;
  init.sampling.repetition_penalty = 2.0F;
  for (int32_t i = 0; i < vocab - 5; ++i) init.prompt.push_back(i);
  SlotInit other = init;
  other.prompt.assign(1, 7);
  for (int round = 0; round < 400; ++round) {
    ASSERT_TRUE(setup.sampler->open(1, other).ok());
    ASSERT_TRUE(setup.sampler->open(round % 2 == 0 ? 0 : 2, round > 397 ? init : other).ok());
  }
  setup.sampler->flush();
  std::vector<float> row(static_cast<size_t>(vocab), 1.0F);
  row[7] = 1.9F;
  row[100] = 1.5F;
  std::vector<float> logits;
  for (int r = 0; r < 3; ++r) logits.insert(logits.end(), row.begin(), row.end());
  // Slots 0 and 2 halved all but the last five tokens; slot 1 halved token 7.
  EXPECT_EQ(run(*setup.sampler, vocab, {0, 1, 2}, logits, 3),
            (std::vector<int32_t>{static_cast<int32_t>(vocab) - 5, 100, static_cast<int32_t>(vocab) - 5}));
  SlotInit large;
  large.sampling.logit_bias.resize(GpuSampler::kMaxBias + 1);
  EXPECT_FALSE(setup.sampler->open(0, large).ok());
}

TEST(GpuSampler, ACapturedGraphChoosesTheSame) {
  SKIP_WITHOUT_GPU();
  Stream& stream = *test_stream();
  const int64_t vocab = 129280;
  const int32_t rows = 5;
  Sampling captured = make_sampler(rows, vocab, rows), direct = make_sampler(rows, vocab, rows);
  std::vector<int32_t> slots(rows);
  std::iota(slots.begin(), slots.end(), 0);
  for (const int32_t slot : slots) {
    const SlotInit init = random_init(300 + static_cast<uint64_t>(slot), vocab);
    ASSERT_TRUE(captured.sampler->open(slot, init).ok());
    ASSERT_TRUE(direct.sampler->open(slot, init).ok());
  }
  captured.sampler->flush();
  direct.sampler->flush();
  DeviceArray<float> logits(rows * vocab);
  const DeviceArray<int32_t> device_slots(slots), last(rows), tokens(rows);
  SampleArgs args;
  args.logits = logits.data();
  args.adjusted = logits.data();
  args.rows = rows;
  args.row_slots = device_slots.data();
  args.last_tokens = last.data();
  args.tokens = tokens.data();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal), cudaSuccess);
  captured.sampler->sample(args);
  ASSERT_EQ(cudaStreamEndCapture(stream.handle(), &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  for (uint64_t step = 0; step < 4; ++step) {
    std::vector<float> all;
    for (uint64_t r = 0; r < rows; ++r) {
      const auto row = make_logits(vocab, 800 + 10 * step + r, Shape::kPeaked);
      all.insert(all.end(), row.begin(), row.end());
    }
    logits.set(all);
    ASSERT_EQ(cudaGraphLaunch(executable, stream.handle()), cudaSuccess);
    ASSERT_EQ(tokens.get(), run(*direct.sampler, vocab, slots, all, rows)) << "step " << step;
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

TEST(GpuSampler, LogprobsAreTheHosts) {
  SKIP_WITHOUT_GPU();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  uint64_t number = 50'000;
  for (const int64_t vocab : {7, 129, 1000, 129280}) {
    const int64_t rows = 6;
    Sampling setup = make_sampler(1, vocab, rows);
    for (const Shape shape : kShapes) {
      for (const int32_t top : {0, 1, 20, 128}) {
        std::vector<float> all;
        std::vector<int32_t> tokens, requested;
        const int32_t ids = 3;
        for (int64_t r = 0; r < rows; ++r) {
          const auto row = make_logits(vocab, ++number, shape);
          all.insert(all.end(), row.begin(), row.end());
          tokens.push_back(r == 4 ? -1 : static_cast<int32_t>(number % static_cast<uint64_t>(vocab)));
          for (const int64_t id : {int64_t{0}, vocab - 1, r % 2 == 0 ? int64_t{-1} : vocab}) {
            requested.push_back(static_cast<int32_t>(id));
          }
        }
        all[static_cast<size_t>(vocab) + 3] = kInfinity;
        if (shape == Shape::kSmooth) all[2 * static_cast<size_t>(vocab) + 2] = nan;
        // In another order than the logits.
        std::vector<int32_t> logit_rows{5, 4, 3, 2, 1, 0};
        const DeviceArray<float> logits(all), token_logprobs(rows), top_logprobs(rows * top),
            requested_logprobs(rows * ids);
        const DeviceArray<int32_t> device_tokens(tokens), device_requested(requested),
            device_rows(logit_rows), top_tokens(rows * top);
        LogprobArgs args;
        args.logits = logits.data();
        args.rows = rows;
        args.logit_rows = device_rows.data();
        args.tokens = device_tokens.data();
        args.top = top;
        args.requested_ids = ids;
        args.requested = device_requested.data();
        args.token_logprobs = token_logprobs.data();
        args.top_tokens = top_tokens.data();
        args.top_logprobs = top_logprobs.data();
        args.requested_logprobs = requested_logprobs.data();
        setup.sampler->logprobs(args);
        const auto got = token_logprobs.get(), got_top = top_logprobs.get(),
                   got_requested = requested_logprobs.get();
        const auto got_tokens = top_tokens.get();
        // The host's log of a float32 sum: 1e-6 of it; the result is rounded to float32.
        const auto near = [](float a, float b) {
          return a == b || (std::isnan(a) && std::isnan(b)) ||
                 std::fabs(a - b) <= 2e-6F + 2e-7F * std::fabs(b);
        };
        for (int64_t r = 0; r < rows; ++r) {
          const auto at = static_cast<size_t>(r);
          const float* row = all.data() + logit_rows[at] * vocab;
          const std::string what =
              fmt::format("vocab {} shape {} top {} row {}", vocab, static_cast<int>(shape), top, r);
          if (tokens[at] < 0) {
            ASSERT_TRUE(std::isnan(got[at])) << what << ": a skipped row was written";
            continue;
          }
          LogprobParams params =
              output_logprobs(top, {requested.begin() + r * ids, requested.begin() + (r + 1) * ids});
          const TokenOutput want = describe_token(row, vocab, tokens[at], params);
          const bool infinite = std::isinf(*std::max_element(row, row + vocab));
          if (infinite) continue;  // no distribution: that it ended, and wrote, is all
          ASSERT_TRUE(near(got[at], want.logprob)) << what << ": " << got[at] << ", not " << want.logprob;
          for (size_t i = 0; i < static_cast<size_t>(top); ++i) {
            const size_t place = at * static_cast<size_t>(top) + i;
            if (i >= want.top.size()) {
              ASSERT_EQ(got_tokens[place], -1) << what;
              continue;
            }
            if (std::isinf(want.top[i].logprob)) continue;  // NaN and -inf are in no order
            ASSERT_EQ(got_tokens[place], want.top[i].token) << what << " place " << i;
            ASSERT_TRUE(near(got_top[place], want.top[i].logprob)) << what << " place " << i;
          }
          for (size_t i = 0; i < static_cast<size_t>(ids); ++i) {
            ASSERT_TRUE(near(got_requested[at * ids + i], want.requested[i].logprob)) << what << " id " << i;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace fathom::sample::cuda
