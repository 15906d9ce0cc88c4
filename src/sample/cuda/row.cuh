// How a kernel sees one row of a call, and what accepting its token means.
#pragma once

#include "sample/cuda/state.cuh"
#include "sample/cuda/weight.cuh"

namespace fathom::sample::cuda {

// What is wanted of a row: a slot's parameters; logprobs are the most likely tokens at temperature 1.
struct Wish {
  bool skip;
  bool greedy;     // the row's token is known after the scan
  int32_t forced;  // the token, whatever the logits say; -1: none
  float scale, top_p, min_p;
  int32_t top_k;  // 0: no limit

  __device__ bool limited() const { return top_k > 0 || top_p < 1.0F; }
};

__device__ inline Wish wish_of(const Call& call, int64_t r) {
  if (call.logprob.logits != nullptr) {
    return {call.logprob.tokens[r] < 0, false, -1, 1.0F, 1.0F, 0.0F, max(call.logprob.top, 1)};
  }
  const int32_t s = call.sample.row_slots[r];
  if (s < 0) return {true, true, -1, 1.0F, 1.0F, 0.0F, 0};
  const Slot& slot = call.pools.slots[s];
  const int32_t top_k = slot.top_k < call.vocab ? slot.top_k : 0;
  const int32_t forced = call.sample.ahead < 0 ? slot.thinking.forced(slot.budget) : -1;
  return {false, slot.greedy != 0 || forced >= 0, forced, slot.scale, slot.top_p, slot.min_p, top_k};
}

// Of sampling: the row of the logits that row r looks at.
__device__ inline int64_t logit_row(const Call& call, int64_t r) {
  return call.sample.logit_rows != nullptr ? call.sample.logit_rows[r] : r;
}

// Row r's mask, or null.
__device__ inline const uint32_t* mask_of(const Call& call, int64_t r) {
  if (call.sample.allowed == nullptr) return nullptr;
  const int32_t mask = call.sample.allowed_rows[logit_row(call, r)];
  return mask < 0 ? nullptr : call.sample.allowed + mask * ((call.vocab + 31) / 32);
}

// Whether bias or bans, which come before the penalties, change the logits.
__device__ inline bool moves(const Call& call, const Slot& slot) {
  if (call.sample.ahead >= 0) return false;
  return slot.num_bias > 0 || (slot.num_stops > 0 && slot.generated < slot.min_new_tokens);
}

__device__ inline bool penalises(const Call& call, const Slot& slot) {
  return call.sample.ahead < 0 && slot.penalises != 0;
}

// Where row r's logits are once they are adjusted.
__device__ inline const float* logits_of(const Call& call, int64_t r) {
  if (call.logprob.logits != nullptr) {
    const int64_t row = call.logprob.logit_rows != nullptr ? call.logprob.logit_rows[r] : r;
    return call.logprob.logits + row * call.vocab;
  }
  const Slot& slot = call.pools.slots[call.sample.row_slots[r]];
  const bool adjusted = moves(call, slot) || penalises(call, slot) || mask_of(call, r) != nullptr;
  return adjusted ? call.sample.adjusted + r * call.vocab
                  : call.sample.logits + logit_row(call, r) * call.vocab;
}

// One thread: the row's token is chosen.
__device__ inline void accept(const Call& call, int64_t r, int32_t token) {
  call.sample.tokens[r] = token;
  if (call.sample.ahead >= 0) return;
  const int32_t s = call.sample.row_slots[r];
  Slot& slot = call.pools.slots[s];
  if (slot.penalises != 0) ++call.pools.counts[s * call.vocab + token];
  ++slot.generated;
  slot.thinking.accept(slot.budget, token);
  call.sample.last_tokens[s] = token;
}

}  // namespace fathom::sample::cuda
