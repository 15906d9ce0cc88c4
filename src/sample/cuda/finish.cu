// The last pass: one CTA a row chooses the token from the candidates or the tiles' masses, or tells of the
// most likely tokens. Where the candidates' lists do not reach to the border (flat distributions, many equal
// logits), the CTA reads the row again, a few times.
#include <cmath>

#include "base/random.h"
#include "sample/cuda/select.cuh"
#include "sample/guess_thresholds.h"

namespace fathom::sample::cuda {
namespace {

constexpr int kParts = 2048;

// The CTA's dynamic shared memory.
union FinishMemory {
  Entry entries[kMostSorted];
  struct {
    MassSums<kParts> masses;
    uint32_t counts[kParts];
  } parts;
  Mass tile_masses[kMaxTiles];
};

// Adds to a part, once for all lanes of the warp where many agree: logits may be all alike.
__device__ void add_to_part(FinishMemory& memory, bool valid, uint32_t part, Mass mass) {
  constexpr int kMany = 12;
  const unsigned active = __ballot_sync(0xffffffffU, valid);
  if (active == 0) return;
  const unsigned first = __shfl_sync(0xffffffffU, part, __ffs(static_cast<int>(active)) - 1);
  bool agrees = valid && part == first;
  const int together = __popc(__ballot_sync(0xffffffffU, agrees));
  if (together >= kMany) {
    const Mass sum = warp_sum(agrees ? mass : 0);
    if (threadIdx.x % kWarp == 0) {
      atomicAdd(memory.parts.counts + first, static_cast<uint32_t>(together));
      memory.parts.masses.add(first, sum);
    }
  } else {
    agrees = false;
  }
  if (valid && !agrees) {
    atomicAdd(memory.parts.counts + part, 1U);
    memory.parts.masses.add(part, mass);
  }
}

// What is known of the border while it is searched for.
struct Search {
  uint32_t tokens;  // more likely than those of the part below, and their mass
  Mass mass;
  uint32_t part, inside;  // the part with the border, and its tokens
};

// Finds the part with the border among those that were counted, or returns false: the limits leave all.
__device__ __noinline__ bool find_part(const FinishMemory& memory, const Limits& limits, Search* search) {
  __shared__ Search found;
  __shared__ bool any;
  __syncthreads();
  if (threadIdx.x == 0) any = false;
  const unsigned at = threadIdx.x * 2;  // two neighbours a thread
  const Mass masses[2] = {memory.parts.masses.at(at), memory.parts.masses.at(at + 1)};
  const uint32_t counts[2] = {memory.parts.counts[at], memory.parts.counts[at + 1]};
  Mass total = 0;
  Mass mass = search->mass + scan_masses(masses[0] + masses[1], &total);
  auto tokens = search->tokens + static_cast<uint32_t>(scan_masses(counts[0] + counts[1], &total));
#pragma unroll
  for (unsigned i = 0; i < 2; ++i) {
    if (!limits.reached(tokens, mass) && limits.reached(tokens + counts[i], mass + masses[i])) {
      found = {tokens, mass, at + i, counts[i]};
      any = true;
    }
    tokens += counts[i];
    mass += masses[i];
  }
  __syncthreads();
  if (any) *search = found;
  return any;
}

// What narrows the search down at first: sixty-fourths of a nat below the largest logit. With the limits'
// tokens in one part, and too many to sort, parts of the distance between entries.
constexpr float kPartsOfNat = 64.0F;
__device__ uint32_t part_of(const RowView& row, float x) {
  const float t = exponent_of(x, row.highest, row.scale);
  return static_cast<uint32_t>(fminf(t * -kPartsOfNat, static_cast<float>(kParts)));
}

// The least likely entry that the limits leave, among all tokens. `heavy`: tokens without mass (32 nats below
// the largest) do not matter.
__device__ Entry search_border(const RowView& row, Entry highest, const Limits& limits, bool heavy,
                               FinishMemory& memory) {
  __shared__ uint32_t gathered;
  __shared__ Entry nearest, farthest;
  Search search{};
  const auto count_parts = [&](const auto& part_of_entry) {
    __syncthreads();
    memory.parts.masses.clear();
    for (int i = static_cast<int>(threadIdx.x); i < kParts; i += kFinishThreads) memory.parts.counts[i] = 0;
    __syncthreads();
    for_each_logit(row, [&](uint32_t id, float x, bool there) {
      const Entry part = part_of_entry(entry_of(key_of(x), id), x);
      const bool valid = there && part < kParts;
      add_to_part(memory, valid, static_cast<uint32_t>(part), valid ? row.mass(x) : 0);
    });
  };
  // The border among the tokens of the part, which can be sorted.
  const auto sort_part = [&](const auto& inside) {
    __syncthreads();
    if (threadIdx.x == 0) gathered = 0;
    __syncthreads();
    for_each_logit(row, [&](uint32_t id, float x, bool there) {
      const Entry entry = entry_of(key_of(x), id);
      if (there && inside(entry, x)) memory.entries[atomicAdd(&gathered, 1U)] = entry;
    });
    __syncthreads();
    const auto count = static_cast<int>(gathered);
    sort_filled(memory.entries, count);
    const int kept = limit_sorted(row, memory.entries, count, limits, search.tokens, search.mass);
    const Entry border = memory.entries[kept - 1];
    __syncthreads();
    return border;
  };

  Entry base = 0, last = ~0ULL;  // distances of what is left
  if (heavy) {
    count_parts([&](Entry, float x) { return static_cast<Entry>(part_of(row, x)); });
    if (!find_part(memory, limits, &search)) return 0;
    const uint32_t part = search.part;
    if (search.inside <= kMostSorted)
      return sort_part([&](Entry, float x) { return part_of(row, x) == part; });
    if (threadIdx.x == 0) {
      nearest = ~0ULL;
      farthest = 0;
    }
    __syncthreads();
    Entry least = ~0ULL, most = 0;
    for_each_logit(row, [&](uint32_t id, float x, bool there) {
      if (!there || part_of(row, x) != part) return;
      const Entry distance = highest - entry_of(key_of(x), id);
      least = min(least, distance);
      most = max(most, distance);
    });
    atomicMin(&nearest, least);
    atomicMax(&farthest, most);
    __syncthreads();
    base = nearest;
    last = farthest;
  }
  // Parts of 2^shift.
  int shift = max(0, 64 - __clzll(static_cast<long long>(last - base)) - 11);
  const auto part_of_distance = [&](Entry entry) {
    const Entry distance = highest - entry;
    return distance < base || distance > last ? ~0ULL : (distance - base) >> shift;
  };
  while (true) {
    count_parts([&](Entry entry, float) { return part_of_distance(entry); });
    if (!find_part(memory, limits, &search)) return 0;
    base += static_cast<Entry>(search.part) << shift;
    last = min(last, base + ((1ULL << shift) - 1));
    if (search.inside <= kMostSorted) break;
    shift = max(0, shift - 11);
  }
  return sort_part([&](Entry entry, float) { return part_of_distance(entry) == 0; });
}

// The masses of what the border and min_p leave, by tile.
__device__ void weigh_tiles(const RowView& row, Entry border, FinishMemory& memory) {
  constexpr int kAtOnce = 4, kLaneEach = kTile / kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int base = warp; base < row.tiles; base += kAtOnce * kFinishWarps) {
    float x[kAtOnce][kLaneEach];
    const auto id_of_place = [&](int tile, int j) {
      return static_cast<int64_t>(base + tile * kFinishWarps) * kTile + j * kWarp + lane;
    };
#pragma unroll
    for (int tile = 0; tile < kAtOnce; ++tile) {
#pragma unroll
      for (int j = 0; j < kLaneEach; ++j) {
        const int64_t id = id_of_place(tile, j);
        x[tile][j] = id < row.vocab ? row.logits[id] : __uint_as_float(0x7fc00000U);  // no mass
      }
    }
#pragma unroll
    for (int tile = 0; tile < kAtOnce; ++tile) {
      Mass sum = 0;
#pragma unroll
      for (int j = 0; j < kLaneEach; ++j) {
        const auto id = static_cast<uint32_t>(id_of_place(tile, j));
        if (entry_of(key_of(x[tile][j]), id) >= border) sum += row.drawn_mass(x[tile][j], id);
      }
      sum = warp_sum(sum);
      const int at = base + tile * kFinishWarps;
      if (lane == 0 && at < row.tiles) memory.tile_masses[at] = sum;
    }
  }
  __syncthreads();
}

// Sorts the candidates into memory when their lists hold the border; returns their number, or -1.
__device__ int sort_candidates(const Call& call, int64_t r, const Limits& limits, FinishMemory& memory) {
  const RowScratch& scratch = call.scratch.rows[r];
  if (scratch.near_count > kNear) return -1;
  const auto near = static_cast<int>(scratch.near_count);
  const Entry* near_entries = call.scratch.near_entries + r * kNear;
  int far = 0;
  if (scratch.near_bucket < kLastBucket && !limits.reached(scratch.near_count, scratch.near_mass)) {
    const uint32_t both = scratch.near_count + scratch.far_count;
    const bool all = scratch.far_bucket == kLastBucket;
    if (scratch.far_count > kFar || !(all || limits.reached(both, scratch.near_mass + scratch.far_mass))) {
      return -1;
    }
    far = static_cast<int>(scratch.far_count);
  }
  const Entry* far_entries = call.scratch.far_entries + r * kFar;
  for (int i = static_cast<int>(threadIdx.x); i < near + far; i += kFinishThreads) {
    memory.entries[i] = i < near ? near_entries[i] : far_entries[i - near];
  }
  sort_filled(memory.entries, near + far);
  return near + far;
}

// What a draw is from: all tokens by tiles, where entries is null, or listed ones.
struct Drawn {
  Mass* tile_masses = nullptr;
  Entry border = 0;  // the least likely one
  Entry* entries = nullptr;
  int count = 0;
};

__device__ Mass total_mass(const RowView& row, const Drawn& drawn) {
  Mass own = 0, total = 0;
  if (drawn.entries != nullptr) {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < drawn.count; i += kFinishThreads) {
      own += row.mass_above(logit_of(drawn.entries[i]));
    }
  } else {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < row.tiles; i += kFinishThreads) {
      own += drawn.tile_masses[i];
    }
  }
  (void)scan_masses(own, &total);
  return total;
}

// The reference's rule (sample/sampler.h): the guess that holds, or -1, and then none of them is in the draw.
__device__ int32_t held_guess(const Call& call, int64_t r, RowView& row, Drawn& drawn, uint64_t seed,
                              uint64_t index) {
  __shared__ int32_t held;
  __shared__ int32_t excluded[GpuSampler::kMaxGuesses];
  __shared__ int num_excluded;
  const SampleArgs& args = call.sample;
  const Mass total = total_mass(row, drawn);
  if (threadIdx.x == 0) {
    held = -1;
    num_excluded = 0;
    const float coin = random_uniform(seed, kCoinStream, index);
    Mass sum = 0;
    for (int i = 0; i < args.guesses && held < 0; ++i) {
      const int32_t guess = args.guessed[r * args.guesses + i];
      if (guess < 0) continue;
      const float x = row.logits[guess];
      const Mass mass =
          entry_of(key_of(x), static_cast<uint32_t>(guess)) >= drawn.border ? row.mass_above(x) : 0;
      if (mass == 0) continue;
      sum += mass;
      const double all = static_cast<double>(total);
      const bool holds = coin < static_cast<double>(sum) / all / args.threshold_acc ||
                         static_cast<double>(mass) / all >= args.threshold_single;
      // Or there is no other token.
      if (holds || sum >= total) {
        held = guess;
      } else {
        excluded[num_excluded++] = guess;
        if (drawn.entries == nullptr) drawn.tile_masses[guess / kTile] -= mass;
      }
    }
  }
  __syncthreads();
  row.excluded = excluded;
  row.num_excluded = num_excluded;
  return held;
}

__device__ void choose(const Call& call, int64_t r, const Wish& wish, RowView& row, FinishMemory& memory) {
  const RowScratch& scratch = call.scratch.rows[r];
  const Slot& slot = call.pools.slots[call.sample.row_slots[r]];
  const auto index = static_cast<uint64_t>(slot.generated + max(call.sample.ahead, 0));
  Drawn drawn;
  if (scratch.state == kDrawAll) {
    drawn.tile_masses = call.scratch.tile_masses + r * call.tiles;
  } else {
    const Limits limits{
        wish.top_k > 0 ? static_cast<uint32_t>(wish.top_k) : 0xffffffffU,
        wish.top_p < 1.0F ? static_cast<double>(wish.top_p) * static_cast<double>(scratch.total) : INFINITY};
    const int candidates = sort_candidates(call, r, limits, memory);
    if (candidates >= 0) {
      drawn.entries = memory.entries;
      drawn.count = limit_sorted(row, memory.entries, candidates, limits, 0, 0);
      drawn.border = memory.entries[drawn.count - 1];
    } else {
      drawn.border = search_border(row, scratch.highest, limits, true, memory);
      weigh_tiles(row, drawn.border, memory);
      drawn.tile_masses = memory.tile_masses;
    }
  }
  bool guessed = false;
  for (int i = 0; call.sample.guessed != nullptr && i < call.sample.guesses; ++i) {
    guessed = guessed || call.sample.guessed[r * call.sample.guesses + i] >= 0;
  }
  const int32_t held = guessed ? held_guess(call, r, row, drawn, slot.seed, index) : -1;
  int32_t token = held;
  if (held < 0) {
    const auto bits = static_cast<uint32_t>(random_bits(slot.seed, guessed ? kRedrawStream : 0, index) >> 40);
    token = drawn.entries != nullptr ? draw_listed(row, drawn.entries, drawn.count, bits)
                                     : draw_tiled(row, drawn.tile_masses, drawn.border, bits);
  }
  if (threadIdx.x == 0) accept(call, r, token);
}

__device__ void describe(const Call& call, int64_t r, const RowView& row, FinishMemory& memory) {
  const RowScratch& scratch = call.scratch.rows[r];
  const LogprobArgs& args = call.logprob;
  const auto wanted = static_cast<int>(min(static_cast<int64_t>(args.top), call.vocab));
  const Limits limits{static_cast<uint32_t>(max(wanted, 1)), INFINITY};
  if (wanted > 0) {
    int found = row.weighs ? sort_candidates(call, r, limits, memory) : -1;
    if (found < wanted) {
      const Entry border = search_border(row, scratch.highest, limits, false, memory);
      __shared__ uint32_t gathered;
      if (threadIdx.x == 0) gathered = 0;
      __syncthreads();
      for_each_logit(row, [&](uint32_t id, float x, bool there) {
        const Entry entry = entry_of(key_of(x), id);
        if (there && entry >= border) memory.entries[atomicAdd(&gathered, 1U)] = entry;
      });
      __syncthreads();
      found = static_cast<int>(gathered);
      sort_filled(memory.entries, found);
    }
  }
  const double log_sum =
      row.weighs ? static_cast<double>(row.highest) + log(static_cast<double>(scratch.total) * kMassUnit)
                 : static_cast<double>(row.highest);
  const auto logprob_of = [&](int64_t id) {
    if (id < 0 || id >= call.vocab) return -INFINITY;
    return static_cast<float>(static_cast<double>(row.logits[id]) - log_sum);
  };
  if (threadIdx.x == 0) args.token_logprobs[r] = logprob_of(args.tokens[r]);
  for (int i = static_cast<int>(threadIdx.x); i < args.top; i += kFinishThreads) {
    const int64_t id = i < wanted ? static_cast<int64_t>(id_of(memory.entries[i])) : -1;
    args.top_tokens[r * args.top + i] = static_cast<int32_t>(id);
    const float logprob = logprob_of(id);
    args.top_logprobs[r * args.top + i] = isnan(logprob) ? -INFINITY : logprob;
  }
  for (int i = static_cast<int>(threadIdx.x); i < args.requested_ids; i += kFinishThreads) {
    args.requested_logprobs[r * args.requested_ids + i] =
        logprob_of(args.requested[r * args.requested_ids + i]);
  }
}

__global__ void __launch_bounds__(kFinishThreads) finish_kernel(Call call) {
  extern __shared__ unsigned char shared[];
  auto& memory = *reinterpret_cast<FinishMemory*>(shared);
  const int64_t r = blockIdx.x;
  const RowScratch& scratch = call.scratch.rows[r];
  if (scratch.state == kDone) return;
  const Wish wish = wish_of(call, r);
  RowView row{logits_of(call, r),         call.vocab, call.tiles,
              logit_of(scratch.highest),  wish.scale, wish.min_p,
              scratch.state != kNotFinite};
  if (call.logprob.logits != nullptr) {
    describe(call, r, row, memory);
  } else {
    choose(call, r, wish, row, memory);
  }
}

}  // namespace

void prepare_finish(device::cuda::Stream& stream) {
  stream.note(
      cudaFuncSetAttribute(finish_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(FinishMemory)),
      "sample: shared memory");
}

void launch_finish(device::cuda::Stream& stream, const Call& call, int64_t rows) {
  finish_kernel<<<static_cast<unsigned>(rows), kFinishThreads, sizeof(FinishMemory), stream.handle()>>>(call);
  stream.launched("sample: finish");
}

}  // namespace fathom::sample::cuda
