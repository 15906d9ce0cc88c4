// What the kernels of this folder share: the slots' state, and the memory in which one call's kernels leave
// things for each other.
#pragma once

#include <cstdint>

#include "sample/cuda/gpu_sampler.h"

namespace fathom::sample::cuda {

// The parameters of a running sequence and the number of its tokens so far.
struct Slot {
  uint64_t seed;
  float scale;  // 1 / temperature
  float top_p, min_p;
  float repetition, frequency, presence;
  int32_t top_k;  // 0: no limit
  int32_t min_new_tokens;
  int32_t generated;
  int32_t num_bias, num_stops;
  int32_t greedy, penalises;  // booleans
  ThinkingBudget budget;
  ThinkingState thinking;
};

// All slots' state.
struct Pools {
  Slot* slots = nullptr;       // [slots]
  uint32_t* counts = nullptr;  // [slots, V] of the output; the high bit: in the prompt. Penalised slots only.
  int32_t* bias_ids = nullptr;   // [slots, kMaxBias], distinct
  float* bias_values = nullptr;  // [slots, kMaxBias]
  int32_t* stop_ids = nullptr;   // [slots, kMaxStops]
  int64_t vocab = 0;
};
constexpr uint32_t kInPrompt = 0x80000000U;

// A row is cut into tiles of a warp's 128 tokens and chunks of a CTA's 1,024.
constexpr int kWarp = 32;
constexpr int kScanThreads = 256;
constexpr int kTile = 128;
constexpr int kChunk = kScanThreads / kWarp * kTile;
constexpr int64_t kMaxVocab = int64_t{1} << 18;
constexpr int kMaxTiles = kMaxVocab / kTile;
constexpr int kNear = 2048;
constexpr int kFar = 6144;

enum RowState : int32_t {
  kDone,       // skipped, or the token is chosen
  kDrawAll,    // from all tokens, or those that min_p leaves: tile_masses has the rest
  kLimited,    // from those that top_k and top_p leave
  kNotFinite,  // logprobs of a row whose largest logit is infinite
};

struct RowScratch {
  unsigned long long best;                 // the largest entry (entry_of); 0 between calls
  unsigned long long highest;              // the same, once it is known
  unsigned long long total;                // mass of all tokens
  unsigned long long near_mass, far_mass;  // of the candidates below, in the lists or not
  uint32_t near_count, far_count;          // of candidates, in the lists or not
  int32_t near_bucket, far_bucket;         // candidates: buckets up to these
  uint32_t arrived;                        // CTAs that have scanned; 0 between calls
  RowState state;
};

struct Scratch {
  RowScratch* rows = nullptr;                  // [R]
  uint32_t* tile_keys = nullptr;               // [R, tiles] the largest key of each tile
  unsigned long long* tile_masses = nullptr;   // [R, tiles]
  unsigned long long* near_entries = nullptr;  // [R, kNear]
  unsigned long long* far_entries = nullptr;   // [R, kFar]
};

// What a call's kernels read; slots' parameters or, for logprobs, none.
struct Call {
  Pools pools;
  Scratch scratch;
  int64_t vocab = 0;
  int tiles = 0;
  SampleArgs sample;    // sampling: logits is set
  LogprobArgs logprob;  // logprobs: logits is set
};

// scan: adjusts the logits, finds each row's largest, and how deep the candidates go. weigh: masses and
// candidates. finish: the choice.
void launch_scan(device::cuda::Stream& stream, const Call& call, int64_t rows);
void launch_weigh(device::cuda::Stream& stream, const Call& call, int64_t rows);
void launch_finish(device::cuda::Stream& stream, const Call& call, int64_t rows);
void launch_follow(device::cuda::Stream& stream, const Pools& pools, const FollowArgs& args);
void launch_follow_tree(device::cuda::Stream& stream, const Pools& pools, const FollowTreeArgs& args);
// Once, when the sampler is made.
void prepare_finish(device::cuda::Stream& stream);

// A piece of what opens slots, in a staging chunk.
struct Command {
  enum Kind : int32_t { kSlot, kBias, kStops, kPrompt, kOutput } kind;
  int32_t slot;
  int32_t begin;  // word of the chunk where its data begin
  int32_t count;  // of words (kSlot), pairs (kBias) or ids
  int32_t first;  // kBias, kStops: their place in the slot's list
};
void launch_apply(device::cuda::Stream& stream, const Pools& pools, const Command* commands, int32_t count,
                  const int32_t* words);

}  // namespace fathom::sample::cuda
