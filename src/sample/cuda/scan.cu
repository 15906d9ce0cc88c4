// The first pass over the logits. CTAs (b, r) of row r take its chunks b, b + gridDim.x, ...
#include <algorithm>
#include <climits>
#include <cmath>

#include "sample/cuda/row.cuh"

namespace fathom::sample::cuda {
namespace {

constexpr unsigned kAll = 0xffffffffU;
constexpr int kWarps = kScanThreads / kWarp;
constexpr int kUnroll = 4;  // chunks whose logits are on their way at once
// Candidates are wanted about as many as fill the near list to a quarter; ...
constexpr int kNearTiles = kNear / 4;
// ... and, where those are not enough, all above 2^-16 of the most likely token.
constexpr int kFarBucket = 11 * 16 + 2;

__device__ bool mine(int64_t id, int64_t vocab) {
  return id >= 0 && id < vocab && id / kChunk % gridDim.x == blockIdx.x;
}

// Copies this CTA's chunks, adds the bias, and bans the stop ids: -inf survives the penalties.
__device__ void bias_and_ban(const Call& call, const Slot& slot, int32_t s, const float* from, float* to) {
  if (from != to) {
    for (int64_t c = blockIdx.x * kChunk; c < call.vocab; c += static_cast<int64_t>(gridDim.x) * kChunk) {
      float x[kChunk / kScanThreads];
#pragma unroll
      for (int j = 0; j < kChunk / kScanThreads; ++j) {
        const int64_t i = c + j * kScanThreads + threadIdx.x;
        if (i < call.vocab) x[j] = from[i];
      }
#pragma unroll
      for (int j = 0; j < kChunk / kScanThreads; ++j) {
        const int64_t i = c + j * kScanThreads + threadIdx.x;
        if (i < call.vocab) to[i] = x[j];
      }
    }
    __syncthreads();
  }
  for (int i = static_cast<int>(threadIdx.x); i < slot.num_bias; i += kScanThreads) {
    const int64_t at = static_cast<int64_t>(s) * GpuSampler::kMaxBias + i;
    const int32_t id = call.pools.bias_ids[at];
    if (mine(id, call.vocab)) to[id] += call.pools.bias_values[at];
  }
  __syncthreads();
  if (slot.generated < slot.min_new_tokens) {
    for (int i = static_cast<int>(threadIdx.x); i < slot.num_stops; i += kScanThreads) {
      const int32_t id = call.pools.stop_ids[static_cast<int64_t>(s) * GpuSampler::kMaxStops + i];
      if (mine(id, call.vocab)) to[id] = -INFINITY;
    }
  }
  __syncthreads();
}

// A logit after the penalties; the order and roundings of SlotSampler::adjust.
__device__ float penalised(const Slot& slot, float x, uint32_t count) {
  const uint32_t outputs = count & ~kInPrompt;
  if (slot.repetition != 1.0F && count != 0) {
    x = x > 0.0F ? __fdiv_rn(x, slot.repetition) : __fmul_rn(x, slot.repetition);
  }
  if (outputs > 0) {
    const float penalty = __fadd_rn(__fmul_rn(slot.frequency, static_cast<float>(outputs)), slot.presence);
    x = __fsub_rn(x, penalty);
  }
  return x;
}

// What is done to a row's logits as they are read, and where the results go.
struct Adjustment {
  const Slot* slot;
  const uint32_t* counts;  // null: no penalties
  const uint32_t* mask;    // null: none
  float* to;               // null: nowhere, the row is greedy

  __device__ bool any() const { return counts != nullptr || mask != nullptr; }

  // The four logits from i on.
  __device__ float4 apply(int64_t i, int64_t vocab, float4 x) const {
    float v[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (i + j >= vocab) continue;
      if (counts != nullptr) v[j] = penalised(*slot, v[j], counts[i + j]);
      if (mask != nullptr && (mask[(i + j) / 32] >> ((i + j) % 32) & 1U) == 0) v[j] = -INFINITY;
      if (to != nullptr) to[i + j] = v[j];
    }
    return {v[0], v[1], v[2], v[3]};
  }
};

// The smallest bucket up to which `want` tiles have their largest logit.
__device__ int bucket_of_tiles(const uint32_t* tile_keys, int tiles, float highest, float scale, int want) {
  __shared__ uint32_t counts[kBuckets];
  __shared__ int found;
  for (int i = static_cast<int>(threadIdx.x); i < kBuckets; i += kScanThreads) counts[i] = 0;
  if (threadIdx.x == 0) found = kLastBucket;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < tiles; i += kScanThreads) {
    const float x = logit_of_key(__ldcg(tile_keys + i));  // other CTAs wrote them
    atomicAdd(counts + bucket_of(exponent_of(x, highest, scale)), 1U);
  }
  __syncthreads();
  if (threadIdx.x < kWarp) {
    constexpr int kEach = kBuckets / kWarp;
    uint32_t sum = 0;
    for (int i = 0; i < kEach; ++i) sum += counts[threadIdx.x * kEach + i];
    uint32_t before = warp_inclusive(sum) - sum;
    for (int i = 0; i < kEach; ++i) {
      const uint32_t count = counts[threadIdx.x * kEach + i];
      const auto wanted = static_cast<uint32_t>(want);
      if (before < wanted && before + count >= wanted) {
        found = min(static_cast<int>(threadIdx.x) * kEach + i, kLastBucket);
      }
      before += count;
    }
  }
  __syncthreads();
  return found;
}

// The row's last CTA: the choice where it is clear already, else how deep the candidates go.
__device__ void conclude(const Call& call, int64_t r, const Wish& wish) {
  RowScratch& row = call.scratch.rows[r];
  __shared__ Entry shared_best;
  if (threadIdx.x == 0) {
    shared_best = atomicMax(&row.best, 0ULL);
    row.highest = shared_best;
    row.best = 0;
    row.arrived = 0;
    row.total = row.near_mass = row.far_mass = 0;
    row.near_count = row.far_count = 0;
  }
  __syncthreads();
  const float highest = logit_of(shared_best);
  const bool sampling = call.sample.logits != nullptr;
  if (!isfinite(highest) || wish.greedy) {
    if (threadIdx.x == 0) {
      if (sampling)
        accept(call, r, wish.forced >= 0 ? wish.forced : static_cast<int32_t>(id_of(shared_best)));
      row.state = sampling ? kDone : kNotFinite;
    }
    return;
  }
  if (!wish.limited()) {
    if (threadIdx.x == 0) row.state = kDrawAll;
    return;
  }
  // Where top_k tiles have their largest logit, there are at least top_k tokens; and, up to half of the
  // tiles, hardly more.
  const bool by_tiles = wish.top_k > 0 && wish.top_k <= call.tiles / 2;
  const int deep = call.vocab <= kNear ? INT_MAX : min(kNearTiles, call.tiles / 2);
  const int near = bucket_of_tiles(call.scratch.tile_keys + r * call.tiles, call.tiles, highest, wish.scale,
                                   by_tiles ? wish.top_k : deep);
  if (threadIdx.x == 0) {
    row.near_bucket = near;
    row.far_bucket = by_tiles ? near : max(near, kFarBucket);
    row.state = kLimited;
  }
}

template <bool kVectors>
__global__ void __launch_bounds__(kScanThreads) scan_kernel(Call call) {
  __shared__ Entry shared_best[kWarps];
  __shared__ bool last;
  const int64_t r = blockIdx.y;
  RowScratch& scratch = call.scratch.rows[r];
  const Wish wish = wish_of(call, r);
  if (wish.skip) {
    if (blockIdx.x == 0 && threadIdx.x == 0) {
      scratch.state = kDone;
      if (call.sample.logits != nullptr) call.sample.tokens[r] = -1;
    }
    return;
  }
  const float* row = logits_of(call, r);
  Adjustment adjustment{};
  if (call.sample.logits != nullptr) {
    const int32_t s = call.sample.row_slots[r];
    const Slot& slot = call.pools.slots[s];
    row = call.sample.logits + logit_row(call, r) * call.vocab;
    float* adjusted = call.sample.adjusted + r * call.vocab;
    if (moves(call, slot)) {
      bias_and_ban(call, slot, s, row, adjusted);
      row = adjusted;
    }
    adjustment = {&slot, penalises(call, slot) ? call.pools.counts + s * call.vocab : nullptr,
                  mask_of(call, r), wish.greedy ? nullptr : adjusted};
  }

  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  uint32_t best_key = 0;
  auto best_id = static_cast<uint32_t>(call.vocab);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kChunk;
  for (int64_t chunk = static_cast<int64_t>(blockIdx.x) * kChunk; chunk < call.vocab;
       chunk += kUnroll * step) {
    float4 loaded[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      loaded[u] = load_four<kVectors>(row, chunk + u * step + threadIdx.x * 4, call.vocab);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t i = chunk + u * step + threadIdx.x * 4;
      if (chunk + u * step >= call.vocab) break;
      if (adjustment.any()) loaded[u] = adjustment.apply(i, call.vocab, loaded[u]);
      const uint32_t keys[4] = {key_of(loaded[u].x), key_of(loaded[u].y), key_of(loaded[u].z),
                                key_of(loaded[u].w)};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (keys[j] > best_key || best_id == call.vocab) {  // ids ascend: the lower of equals stays
          best_key = keys[j];
          best_id = static_cast<uint32_t>(i + j);
        }
      }
      const uint32_t highest = __reduce_max_sync(kAll, max(max(keys[0], keys[1]), max(keys[2], keys[3])));
      const auto tile = static_cast<int>((chunk + u * step) / kTile) + warp;
      if (lane == 0 && tile < call.tiles) call.scratch.tile_keys[r * call.tiles + tile] = highest;
    }
  }
  const uint32_t warp_key = __reduce_max_sync(kAll, best_key);
  const uint32_t warp_id = __reduce_min_sync(kAll, best_key == warp_key ? best_id : 0xffffffffU);
  if (lane == 0) shared_best[warp] = entry_of(warp_key, warp_id);
  __syncthreads();
  if (threadIdx.x == 0) {
    Entry best = shared_best[0];
    for (int w = 1; w < kWarps; ++w) best = max(best, shared_best[w]);
    atomicMax(&scratch.best, best);
    __threadfence();
    last = atomicAdd(&scratch.arrived, 1U) == gridDim.x - 1;
  }
  __syncthreads();
  if (last) {
    __threadfence();
    conclude(call, r, wish);
  }
}

// CTAs of a row in the first two passes: as many as the GPU holds at once.
unsigned slices(const device::cuda::Stream& stream, int64_t vocab, int64_t rows) {
  constexpr int64_t kPerMultiprocessor = 4;
  const int64_t chunks = (vocab + kChunk - 1) / kChunk;
  const int64_t wanted = stream.gpu().multiprocessors * kPerMultiprocessor / rows;
  return static_cast<unsigned>(std::clamp<int64_t>(wanted, 1, chunks));
}

bool takes_vectors(const Call& call) {
  const auto aligned = [](const float* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  return call.vocab % 4 == 0 && aligned(call.sample.logits) && aligned(call.sample.adjusted) &&
         aligned(call.logprob.logits);
}

// Masses of the row's tokens: by tile, where the draw is among all, or in all and those of the candidates,
// which are listed.
template <bool kVectors>
__global__ void __launch_bounds__(kScanThreads) weigh_kernel(Call call) {
  const int64_t r = blockIdx.y;
  RowScratch& scratch = call.scratch.rows[r];
  const RowState state = scratch.state;
  if (state != kDrawAll && state != kLimited) return;
  const Wish wish = wish_of(call, r);
  const float* row = logits_of(call, r);
  const float highest = logit_of(scratch.highest);
  const int near = scratch.near_bucket, far = scratch.far_bucket;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Mass total = 0, near_mass = 0, far_mass = 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kChunk;
  for (int64_t chunk = static_cast<int64_t>(blockIdx.x) * kChunk; chunk < call.vocab;
       chunk += kUnroll * step) {
    float4 loaded[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      loaded[u] = load_four<kVectors>(row, chunk + u * step + threadIdx.x * 4, call.vocab);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (chunk + u * step >= call.vocab) break;
      const float x[4] = {loaded[u].x, loaded[u].y, loaded[u].z, loaded[u].w};
      Mass masses[4];
      int buckets[4];
      Mass sum = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float t = exponent_of(x[j], highest, wish.scale);
        const float weight = weight_of(t);
        masses[j] = mass_of(weight);
        buckets[j] = bucket_of(t);
        if (state == kDrawAll && weight < wish.min_p) masses[j] = 0;
        sum += masses[j];
      }
      if (state == kDrawAll) {
        sum = warp_sum(sum);
        const auto tile = static_cast<int>((chunk + u * step) / kTile) + warp;
        if (lane == 0 && tile < call.tiles) call.scratch.tile_masses[r * call.tiles + tile] = sum;
        continue;
      }
      total += sum;
      const int nearest = min(min(buckets[0], buckets[1]), min(buckets[2], buckets[3]));
      if (nearest > far) continue;  // most
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (buckets[j] > far) continue;
        const auto id = static_cast<uint32_t>(chunk + u * step + threadIdx.x * 4 + j);
        const Entry entry = entry_of(key_of(x[j]), id);
        if (buckets[j] <= near) {
          near_mass += masses[j];
          const uint32_t at = atomicAdd(&scratch.near_count, 1U);
          if (at < kNear) call.scratch.near_entries[r * kNear + at] = entry;
        } else {
          far_mass += masses[j];
          const uint32_t at = atomicAdd(&scratch.far_count, 1U);
          if (at < kFar) call.scratch.far_entries[r * kFar + at] = entry;
        }
      }
    }
  }
  if (state == kDrawAll) return;
  __syncwarp();
  total = warp_sum(total);
  near_mass = warp_sum(near_mass);
  far_mass = warp_sum(far_mass);
  if (lane == 0) {
    atomicAdd(&scratch.total, total);
    if (near_mass != 0) atomicAdd(&scratch.near_mass, near_mass);
    if (far_mass != 0) atomicAdd(&scratch.far_mass, far_mass);
  }
}

}  // namespace

void launch_scan(device::cuda::Stream& stream, const Call& call, int64_t rows) {
  const dim3 grid(slices(stream, call.vocab, rows), static_cast<unsigned>(rows));
  if (takes_vectors(call)) {
    scan_kernel<true><<<grid, kScanThreads, 0, stream.handle()>>>(call);
  } else {
    scan_kernel<false><<<grid, kScanThreads, 0, stream.handle()>>>(call);
  }
  stream.launched("sample: scan");
}

void launch_weigh(device::cuda::Stream& stream, const Call& call, int64_t rows) {
  const dim3 grid(slices(stream, call.vocab, rows), static_cast<unsigned>(rows));
  if (takes_vectors(call)) {
    weigh_kernel<true><<<grid, kScanThreads, 0, stream.handle()>>>(call);
  } else {
    weigh_kernel<false><<<grid, kScanThreads, 0, stream.handle()>>>(call);
  }
  stream.launched("sample: weigh");
}

}  // namespace fathom::sample::cuda
