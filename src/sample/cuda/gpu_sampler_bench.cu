// Time to choose the tokens of a batch on the GPU at DeepSeek's vocabulary, in a replayed graph. Two sets of
// logits take turns, so that large batches do not lie in the L2 cache.
#include <fmt/core.h>

#include <cmath>
#include <vector>

#include "base/random.h"
#include "device/cuda/testing.h"
#include "sample/cuda/gpu_sampler.h"
#include "sample/testing.h"

namespace {

using namespace fathom;  // NOLINT
using device::cuda::testing::DeviceArray;
using device::cuda::testing::test_stream;
using sample::Choice;
using sample::cuda::GpuSampler;

constexpr int64_t kVocab = 129280;
constexpr int64_t kMaxRows = 128;
constexpr int kSets = 2;

// As a language model's: most tokens far below a few likely ones.
std::vector<float> make_logits() {
  std::vector<float> logits(static_cast<size_t>(kMaxRows * kVocab));
  for (size_t i = 0; i < logits.size(); ++i) {
    const float u = random_uniform(1, 0, i) + 1e-7F;
    logits[i] = 2.5F * std::sqrt(-2.0F * std::log(u)) * std::cos(6.2831853F * random_uniform(1, 1, i));
    if (u > 0.9997F) logits[i] += 12.0F;
  }
  return logits;
}

template <class Run>
double graph_us(const Run& run) {
  device::cuda::Stream& stream = *test_stream();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  stream.note(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal), "bench");
  for (int i = 0; i < 5 * kSets; ++i) run(i % kSets);
  stream.note(cudaStreamEndCapture(stream.handle(), &graph), "bench");
  stream.note(cudaGraphInstantiate(&executable, graph, 0), "bench");
  const double us = device::cuda::testing::time_us(
      stream, [&] { stream.note(cudaGraphLaunch(executable, stream.handle()), "bench"); }, 15);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  return us / (5 * kSets);
}

struct Case {
  const char* name;
  SamplingParams params;
};
const Case kCases[] = {
    {"greedy", Choice{.temperature = 0.0F}},
    {"temperature 1", Choice{}},
    {"top_p 0.95, temperature 0.6", Choice{.temperature = 0.6F, .top_p = 0.95F}},
    {"top_k 50, top_p 0.9", Choice{.top_p = 0.9F, .top_k = 50}},
    {"min_p 0.05", Choice{.min_p = 0.05F}},
    {"top_p 0.95, temperature 3 (flat)", Choice{.temperature = 3.0F, .top_p = 0.95F}},
    {"greedy, penalties", Choice{.temperature = 0.0F, .repetition_penalty = 1.1F}},
};

}  // namespace

int main() {
  if (test_stream() == nullptr) {
    fmt::print("no GPU\n");
    return 1;
  }
  device::cuda::Stream& stream = *test_stream();
  device::cuda::DeviceArena arena;
  auto sampler = std::move(GpuSampler::create(stream, arena, {kMaxRows, kVocab, kMaxRows})).value();
  const std::vector<float> host = make_logits();
  const DeviceArray<float> sets[kSets] = {DeviceArray<float>(host), DeviceArray<float>(host)};
  const DeviceArray<float> adjusted(kMaxRows * kVocab);
  std::vector<int32_t> slots;
  for (int32_t i = 0; i < kMaxRows; ++i) slots.push_back(i);
  const DeviceArray<int32_t> device_slots(slots), last(kMaxRows), tokens(kMaxRows);
  for (const Case& each : kCases) {
    for (const int32_t slot : slots) {
      SlotInit init;
      init.sampling = each.params;
      init.sampling.seed = static_cast<uint64_t>(slot);
      for (int32_t i = 0; i < 1000; ++i) init.prompt.push_back(i * 97);
      FATHOM_CHECK(sampler->open(slot, init).ok(), "open");
    }
    sampler->flush();
    for (const int64_t rows : {1, 16, 128}) {
      const double us = graph_us([&](int set) {
        sample::cuda::SampleArgs args;
        args.logits = sets[set].data();
        args.adjusted = adjusted.data();
        args.rows = rows;
        args.row_slots = device_slots.data();
        args.last_tokens = last.data();
        args.tokens = tokens.data();
        args.draws = !each.params.greedy();
        sampler->sample(args);
      });
      fmt::print("{:34} {:4} rows  {:8.1f} us  {:.2f} TB/s of one read\n", each.name, rows, us,
                 static_cast<double>(rows * kVocab * 4) / us / 1e6);
    }
  }
  const DeviceArray<float> token_logprobs(kMaxRows), top_logprobs(kMaxRows * 20);
  const DeviceArray<int32_t> top_tokens(kMaxRows * 20);
  for (const int64_t rows : {1, 16, 128}) {
    const double us = graph_us([&](int set) {
      sample::cuda::LogprobArgs args;
      args.logits = sets[set].data();
      args.rows = rows;
      args.tokens = tokens.data();
      args.top = 20;
      args.token_logprobs = token_logprobs.data();
      args.top_tokens = top_tokens.data();
      args.top_logprobs = top_logprobs.data();
      sampler->logprobs(args);
    });
    fmt::print("{:34} {:4} rows  {:8.1f} us\n", "logprobs, top 20", rows, us);
  }
  FATHOM_CHECK(stream.status().ok(), "{}", stream.status().error().message);
  return 0;
}
