#include "sample/cuda/gpu_sampler.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "sample/cuda/staging.h"
#include "sample/cuda/state.cuh"

namespace fathom::sample::cuda {
namespace {

Slot state_of(const SlotInit& init) {
  const SamplingParams& params = init.sampling;
  Slot slot{};
  slot.seed = params.seed;
  slot.greedy = static_cast<int32_t>(params.greedy());
  slot.scale = params.greedy() ? 1.0F : 1.0F / params.temperature;
  slot.top_p = params.top_p;
  slot.min_p = params.min_p;
  slot.top_k = std::max(params.top_k, 0);
  slot.repetition = params.repetition_penalty;
  slot.frequency = params.frequency_penalty;
  slot.presence = params.presence_penalty;
  slot.penalises = static_cast<int32_t>(params.repetition_penalty != 1.0F ||
                                        params.frequency_penalty != 0.0F || params.presence_penalty != 0.0F);
  slot.min_new_tokens = params.min_new_tokens;
  slot.generated = static_cast<int32_t>(init.output.size());
  slot.num_stops = static_cast<int32_t>(params.stop_token_ids.size());
  slot.budget = params.thinking;
  slot.thinking.thought = params.thinking.begun;
  for (const int32_t token : init.output) slot.thinking.accept(params.thinking, token);
  return slot;
}

// Words (id, bits of the value), each id once.
std::vector<int32_t> bias_words(const SamplingParams& params) {
  std::vector<std::pair<int32_t, float>> sums;
  for (const auto& [id, bias] : params.logit_bias) {
    const auto there =
        std::find_if(sums.begin(), sums.end(), [id](const auto& sum) { return sum.first == id; });
    if (there == sums.end()) {
      sums.emplace_back(id, bias);
    } else {
      there->second += bias;
    }
  }
  std::vector<int32_t> words;
  for (const auto& [id, sum] : sums) {
    words.push_back(id);
    words.push_back(std::bit_cast<int32_t>(sum));
  }
  return words;
}

}  // namespace

GpuSampler::GpuSampler(device::cuda::Stream& stream, const GpuSamplerSizes& sizes)
    : stream_(stream),
      sizes_(sizes),
      pools_(std::make_unique<Pools>()),
      scratch_(std::make_unique<Scratch>()),
      draws_(static_cast<size_t>(sizes.slots)) {}

GpuSampler::~GpuSampler() = default;

Result<std::unique_ptr<GpuSampler>> GpuSampler::create(device::cuda::Stream& stream,
                                                       device::cuda::DeviceArena& arena,
                                                       const GpuSamplerSizes& sizes) {
  FATHOM_CHECK(sizes.slots > 0 && sizes.rows > 0 && sizes.vocab > 0, "{} slots, {} rows, {} tokens",
               sizes.slots, sizes.rows, sizes.vocab);
  if (sizes.vocab > kMaxVocab) {
    return error(ErrorCode::kInvalidArgument, "a vocabulary of {} tokens: the GPU's sampler takes at most {}",
                 sizes.vocab, kMaxVocab);
  }
  std::unique_ptr<GpuSampler> sampler(new GpuSampler(stream, sizes));
  Result<void> outcome = {};
  const auto take = [&]<class T>(T*& to, int64_t count) {
    if (!outcome.ok()) return;
    auto memory = arena.allocate_array<T>(count);
    if (!memory.ok()) {
      outcome = memory.error();
      return;
    }
    to = *memory;
  };
  const int64_t tiles = (sizes.vocab + kTile - 1) / kTile;
  Pools& pools = *sampler->pools_;
  pools.vocab = sizes.vocab;
  take(pools.slots, sizes.slots);
  take(pools.counts, sizes.slots * sizes.vocab);
  take(pools.bias_ids, sizes.slots * static_cast<int64_t>(kMaxBias));
  take(pools.bias_values, sizes.slots * static_cast<int64_t>(kMaxBias));
  take(pools.stop_ids, sizes.slots * static_cast<int64_t>(kMaxStops));
  Scratch& scratch = *sampler->scratch_;
  take(scratch.rows, sizes.rows);
  take(scratch.tile_keys, sizes.rows * tiles);
  take(scratch.tile_masses, sizes.rows * tiles);
  take(scratch.near_entries, sizes.rows * kNear);
  take(scratch.far_entries, sizes.rows * kFar);
  if (!outcome.ok()) return outcome.error();
  stream.fill(pools.slots, 0, static_cast<size_t>(sizes.slots) * sizeof(Slot));
  stream.fill(scratch.rows, 0, static_cast<size_t>(sizes.rows) * sizeof(RowScratch));
  prepare_finish(stream);
  auto staging = Staging::create(stream, arena, pools);
  if (!staging.ok()) return staging.error();
  sampler->staging_ = std::move(*staging);
  FATHOM_TRY(stream.status());
  return sampler;
}

Result<void> GpuSampler::open(int32_t slot, const SlotInit& init) {
  FATHOM_CHECK(slot >= 0 && slot < sizes_.slots, "slot {} of {}", slot, sizes_.slots);
  const SamplingParams& params = init.sampling;
  if (params.logit_bias.size() > kMaxBias || params.stop_token_ids.size() > kMaxStops) {
    return error(ErrorCode::kInvalidArgument,
                 "{} logit biases and {} stop ids: at most {} and {} go to the GPU's sampler",
                 params.logit_bias.size(), params.stop_token_ids.size(), kMaxBias, kMaxStops);
  }
  Slot state = state_of(init);
  const std::vector<int32_t> bias = bias_words(params);
  state.num_bias = static_cast<int32_t>(bias.size()) / 2;
  draws_[static_cast<size_t>(slot)] = state.greedy == 0;
  staging_->add_slot(slot, state);
  staging_->add_list(Command::kBias, slot, bias, 2);
  staging_->add_list(Command::kStops, slot, params.stop_token_ids);
  if (params.repetition_penalty != 1.0F) staging_->add_list(Command::kPrompt, slot, init.prompt);
  if (state.penalises != 0) staging_->add_list(Command::kOutput, slot, init.output);
  return {};
}

void GpuSampler::flush() {
  staging_->send();
}

bool GpuSampler::draws(std::span<const int32_t> slots) const {
  return std::any_of(slots.begin(), slots.end(),
                     [this](int32_t slot) { return slot >= 0 && draws_[static_cast<size_t>(slot)]; });
}

void GpuSampler::sample(const SampleArgs& args) {
  FATHOM_CHECK(args.rows <= sizes_.rows, "{} rows of at most {}", args.rows, sizes_.rows);
  FATHOM_CHECK(args.logits != nullptr && args.adjusted != nullptr && args.row_slots != nullptr &&
                   args.last_tokens != nullptr && args.tokens != nullptr &&
                   (args.allowed == nullptr || args.allowed_rows != nullptr),
               "sample() without an array");
  FATHOM_CHECK(args.ahead < 0 || (args.allowed == nullptr && args.guessed == nullptr),
               "a guess under a mask, or with thresholds");
  FATHOM_CHECK(args.guesses <= kMaxGuesses, "{} guesses for a place", args.guesses);
  FATHOM_CHECK(args.logit_rows == nullptr || args.adjusted != args.logits,
               "logits of other rows are adjusted where they are");
  if (args.rows == 0) return;
  Call call;
  call.pools = *pools_;
  call.scratch = *scratch_;
  call.vocab = sizes_.vocab;
  call.tiles = static_cast<int>((sizes_.vocab + kTile - 1) / kTile);
  call.sample = args;
  launch_scan(stream_, call, args.rows);
  if (!args.draws) return;
  launch_weigh(stream_, call, args.rows);
  launch_finish(stream_, call, args.rows);
}

void GpuSampler::follow(const FollowArgs& args) {
  FATHOM_CHECK(args.tokens != nullptr && args.guesses != nullptr && args.drafts != nullptr &&
                   args.row_slots != nullptr && args.next_slots != nullptr,
               "follow() without an array");
  if (args.rows > 0) launch_follow(stream_, *pools_, args);
}

void GpuSampler::follow(const FollowTreeArgs& args) {
  FATHOM_CHECK(args.tokens != nullptr && args.row_slots != nullptr && args.logit_rows != nullptr &&
                   args.place_tokens != nullptr && args.place_parents != nullptr &&
                   args.next_slots != nullptr && args.next_logit_rows != nullptr &&
                   args.next_guessed != nullptr,
               "follow() without an array");
  if (args.rows > 0) launch_follow_tree(stream_, *pools_, args);
}

void GpuSampler::logprobs(const LogprobArgs& args) {
  FATHOM_CHECK(args.rows <= sizes_.rows, "{} rows of at most {}", args.rows, sizes_.rows);
  FATHOM_CHECK(args.top >= 0 && args.top <= kMaxTop, "the top {} of at most {}", args.top, kMaxTop);
  FATHOM_CHECK(
      args.logits != nullptr && args.tokens != nullptr && args.token_logprobs != nullptr &&
          (args.top == 0 || (args.top_tokens != nullptr && args.top_logprobs != nullptr)) &&
          (args.requested_ids == 0 || (args.requested != nullptr && args.requested_logprobs != nullptr)),
      "logprobs() without an array");
  if (args.rows == 0) return;
  Call call;
  call.scratch = *scratch_;
  call.vocab = sizes_.vocab;
  call.tiles = static_cast<int>((sizes_.vocab + kTile - 1) / kTile);
  call.logprob = args;
  launch_scan(stream_, call, args.rows);
  launch_weigh(stream_, call, args.rows);
  launch_finish(stream_, call, args.rows);
}

}  // namespace fathom::sample::cuda
