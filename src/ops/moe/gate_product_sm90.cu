// The gate's product, the choice of the experts and the sort of the tokens' copies, in one launch, for few
// tokens: what takes time there is not the work but how long one step waits for the other.
//
// A cluster has 16 rows of the weight, its CTAs different parts of k (Weight::parted), a warp a part of 512:
// every chain of products of the whole gate runs at once, over weights that came while the kernel before this
// one still ran. The parts meet in the first CTA of the cluster, which adds them up in their order (the sums
// of ops/linear/mma_parts.cu) and scores them. The first CTA of all waits for the scores of the others,
// chooses for all tokens, a warp each, and sorts. A score is a message of its own: where none has come yet
// there is kNothing, and so it is again once it was read. The choice runs once for nothing before there is
// one to make: its instructions come from memory, and that took longer than they do.
#include "base/check.h"
#include "base/math.h"
#include "device/cuda/launch_kernel.h"
#include "device/cuda/shared_memory.h"
#include "ops/gate/choose.cuh"
#include "ops/moe/gate_product.h"
#include "ops/moe/sort_few.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

using gate_detail::Row;
using Scoring = GateParams::Scoring;

constexpr int kWarps = 16, kThreads = kWarps * 32;
constexpr int kCluster = 4;
constexpr int kMostEach = 4;                      // parts of a CTA
constexpr int kMostParts = kCluster * kMostEach;  // of k
constexpr int kRows = 16;                         // of the weight
constexpr int kTokens = kMostGateProductTokens;
constexpr int kMostExperts = 256;
constexpr uint64_t kNothing = ~uint64_t{0};  // two NaNs
constexpr int kHalf = kSumPart / 2;  // of a part: its products begin when this much of the tokens is there

static_assert(kTokens <= kWarps && kTokens <= 32 && kMostExperts <= kThreads);

struct Call {
  const __nv_bfloat16* x;       // [T, k]
  const __nv_bfloat16* weight;  // [E, k_stride]
  int64_t x_stride, k_stride;
  int32_t k, tokens;
  int32_t parts, each;  // of k: in all, and of a CTA
  uint64_t* scores;     // [T, E] score and choice, or (softmax) the logit; or kNothing
  GateArgs gate;
  ExpertSortArgs sort;

  // Bytes from row to row of what a CTA holds: an odd number of 16-byte lines, so that ldmatrix meets no bank
  // twice.
  __host__ __device__ int pitch() const { return each * kSumPart * 2 + 16; }
};

// The first CTA's shared memory when it chooses and sorts.
struct Last {
  double* exponentials;  // [T, E], softmax only
  float* rows;           // [T, gate_words]
  int32_t* experts;      // [T, K] ids, then places among the experts here
  uint32_t* tokens_of;   // [E] and
  int32_t* firsts;       // [E] of sort_few
  int32_t* slots;        // [E]

  __device__ Last(const GateParams& params, int tokens, uint8_t* memory) {
    exponentials = reinterpret_cast<double*>(memory);
    rows = reinterpret_cast<float*>(exponentials +
                                    (params.scoring == Scoring::kSoftmax ? tokens * params.experts : 0));
    experts = reinterpret_cast<int32_t*>(rows + tokens * gate_words(params));
    tokens_of = reinterpret_cast<uint32_t*>(experts + tokens * params.top_k);
    firsts = reinterpret_cast<int32_t*>(tokens_of + params.experts);
    slots = firsts + params.experts;
  }
  __host__ __device__ static int bytes(const GateParams& params, int tokens) {
    const int doubles = params.scoring == Scoring::kSoftmax ? tokens * params.experts : 0;
    const int words = tokens * (gate_words(params) + params.top_k) + 3 * params.experts;
    return 8 * doubles + 4 * words;
  }
};

// Where a choice goes, and its sort.
struct Outcome {
  int32_t* ids;    // [T, K]
  float* weights;  // [T, K]
  ExpertSort sort;

  // In shared memory, of one token, for nobody.
  __device__ Outcome(const GateParams& params, uint8_t* memory) {
    ids = reinterpret_cast<int32_t*>(memory);
    weights = reinterpret_cast<float*>(ids + params.top_k);
    sort.tokens = ids + 2 * params.top_k;
    sort.places = ids + 3 * params.top_k;
    sort.offsets = ids + 4 * params.top_k;
  }
  __device__ explicit Outcome(const Call& call)
      : ids(call.gate.ids), weights(call.gate.weights), sort(call.sort.sort) {}
  static int bytes(const ExpertSortArgs& sort) { return 4 * (4 * sort.top_k + sort.experts + 1); }
};

// Half a part of 16 rows of weights times 8 tokens, added to a lane's sums of it.
__device__ void multiply(float (&sum)[4], const uint8_t* weights, const uint8_t* tokens) {
  constexpr int kSteps = kHalf / 32;
  uint32_t a[2][2][4], b[2][4];
  const auto load = [&](int step) {
    load_matrix_x4(a[step % 2][0], weights + step * 64);
    load_matrix_x4(a[step % 2][1], weights + step * 64 + 32);
    load_matrix_x4(b[step % 2], tokens + step * 64);
  };
  load(0);
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    if (step + 1 < kSteps) load(step + 1);
    mma_bf16(sum, a[step % 2][0], b[step % 2]);
    mma_bf16(sum, a[step % 2][1], b[step % 2] + 2);
  }
}

__device__ void store_score(uint64_t* to, uint64_t value) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to), "l"(value) : "memory");
}
__device__ uint64_t load_score(const uint64_t* from) {
  uint64_t value;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(from) : "memory");
  return value;
}
__device__ uint64_t pack(float score, float choice) {
  const uint64_t both = uint64_t{__float_as_uint(choice)} << 32 | __float_as_uint(score);
  return both != kNothing ? both : kNothing >> 1;  // a NaN as well
}

// All tokens' scores and choices, as they come, into their rows; ends with a barrier. The sums of softmax are
// those of gate_detail::score: of each 32 experts by halves, then in order.
__device__ void gather_scores(const Call& call, const Last& last) {
  const GateParams& params = call.gate.params;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int count = call.tokens * params.experts, words = gate_words(params);
  const auto row_of = [&](int token) { return gate_detail::row_in(last.rows + token * words, params); };
  constexpr int kMost = kTokens * kMostExperts / kThreads;
  uint64_t scores[kMost];
#pragma unroll
  for (int i = 0; i < kMost; ++i) scores[i] = thread + i * kThreads < count ? kNothing : 0;
  bool waits = true;
  while (waits) {
#pragma unroll
    for (int i = 0; i < kMost; ++i) {
      if (scores[i] == kNothing) scores[i] = load_score(call.scores + thread + i * kThreads);
    }
    waits = false;
#pragma unroll
    for (int i = 0; i < kMost; ++i) waits = waits || scores[i] == kNothing;
  }
#pragma unroll
  for (int i = 0; i < kMost; ++i) {
    const int at = thread + i * kThreads;
    if (at >= count) break;
    const int token = at / params.experts, e = at - token * params.experts;
    const Row row = row_of(token);
    row.scores[e] = __uint_as_float(static_cast<uint32_t>(scores[i]));
    row.choice[e] = __uint_as_float(static_cast<uint32_t>(scores[i] >> 32));
    store_score(call.scores + at, kNothing);
  }
  __syncthreads();
  if (params.scoring == Scoring::kSigmoid) return;

  __shared__ float tops[kTokens];
  __shared__ double sums[kTokens];
  if (warp < call.tokens) {
    const float* logits = row_of(warp).scores;
    float top = gate_detail::out();
#pragma unroll 1
    for (int e = lane; e < params.experts; e += 32) top = fmaxf(top, logits[e]);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(gate_detail::kAll, top, step));
    if (lane == 0) tops[warp] = top;
  }
  __syncthreads();
#pragma unroll 1
  for (int at = thread; at < count; at += kThreads) {
    const int token = at / params.experts, e = at - token * params.experts;
    last.exponentials[at] = gate_detail::above_top(row_of(token).scores[e], tops[token]);
  }
  __syncthreads();
  if (warp < call.tokens) {
    const double* own = last.exponentials + warp * params.experts;
    double sum = 0.0;
#pragma unroll 1
    for (int first = 0; first < params.experts; first += 32) {
      double of_32 = first + lane < params.experts ? own[first + lane] : 0.0;
#pragma unroll
      for (int step = 16; step > 0; step /= 2) of_32 += __shfl_xor_sync(gate_detail::kAll, of_32, step);
      sum = first == 0 ? of_32 : sum + of_32;
    }
    if (lane == 0) sums[warp] = sum;
  }
  __syncthreads();
#pragma unroll 1
  for (int at = thread; at < count; at += kThreads) {
    const int token = at / params.experts, e = at - token * params.experts;
    const Row row = row_of(token);
    row.scores[e] = static_cast<float>(last.exponentials[at] / sums[token]);
    row.choice[e] = gate_detail::choice_of(row.scores[e], call.gate.bias, e, params);
  }
  __syncthreads();
}

// By the scores and choices in the rows.
template <int kItems>
__device__ void choose_and_sort(const Call& call, const Last& last, int tokens, const bool* paddings,
                                const Outcome& to) {
  const GateParams& params = call.gate.params;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  if (warp < tokens) {
    const Row row = gate_detail::row_in(last.rows + warp * gate_words(params), params);
    gate_detail::choose_scored<kItems>(params, row, last.experts + warp * params.top_k,
                                       to.weights + warp * params.top_k);
  }
  __syncthreads();
#pragma unroll 1
  for (int i = thread; i < tokens * params.top_k; i += kThreads) {
    const int32_t id = last.experts[i], token = i / params.top_k;
    const int32_t expert = paddings[token] ? -1 : last.slots[id];
    to.ids[i] = id;
    last.experts[i] = expert;
    if (expert >= 0) atomicOr(last.tokens_of + expert, 1U << token);
  }
  __syncthreads();
  ExpertSortArgs sort = call.sort;
  sort.sort = to.sort;
  if (tokens == 1) {
    sort_one(last.experts, sort);
  } else {
    sort_few(last.experts, last.tokens_of, last.firsts, sort);
  }
}

using Parts = float4[kMostParts][kTokens / 8][32];

// The CTA's part of the product, whose weights are on their way; the first of a cluster's scores its rows.
// padding: of the token of this thread's number.
__device__ void multiply_and_score(const Call& call, uint8_t* memory, Parts& parts, uint64_t& parts_there,
                                   bool& padding) {
  const GateParams& params = call.gate.params;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const auto rank = static_cast<int>(rank_in_cluster());
  const int n_first = static_cast<int>(blockIdx.x) / kCluster * kRows;
  const int first_part = rank * call.each, here = min(call.parts - first_part, call.each);
  const int pitch = call.pitch();
  // What else nobody writes: the bias of the row whose sum this thread will have.
  const int own_row = n_first + thread % 128 / 16 + thread % 4 / 2 * 8;
  const int own_token = thread / 128 * 8 + thread % 16 / 4 * 2 + thread % 2;
  const bool scores_one = rank == 0 && own_row < params.experts && own_token < call.tokens;
  const float bias = scores_one && call.gate.bias != nullptr ? call.gate.bias[own_row] : 0.0F;
  cluster_sync();  // before anything is written into another CTA's memory
  if (rank == 0 && thread == 0) {
    barrier_expect(&parts_there,
                   static_cast<uint32_t>(call.parts * ceil_div(call.tokens, 8)) * sizeof(parts[0][0]));
  }
  device::cuda::wait_for_previous();
  device::cuda::let_next_start();  // not before: the next one may count on all before this one (cuda.h)

  // A warp brings a part of every fourth token, half after half.
  const int own_part = warp % kMostEach;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int chunk = half * (kHalf / 8) + lane;
    const int k = (first_part + own_part) * kSumPart + chunk * 8;
    const bool inside = k < call.k;
#pragma unroll 1
    for (int line = warp / kMostEach; own_part < here && line < call.tokens; line += kWarps / kMostEach) {
      copy_async_16(memory + (kRows + line) * pitch + own_part * kSumPart * 2 + chunk * 16,
                    call.x + line * call.x_stride + (inside ? k : 0), inside);
    }
    copy_async_commit();
  }
  padding = blockIdx.x == 0 && call.sort.positions != nullptr && thread < call.tokens &&
            call.sort.positions[thread] < 0;

  // A warp multiplies a part of eight tokens; lines past the last token's are its own once more.
  const int first_token = warp / kMostEach * 8;
  const bool multiplies = own_part < here && first_token < call.tokens;
  const uint8_t* weights = memory + lane % 16 * pitch + own_part * kSumPart * 2 + lane / 16 * 16;
  const uint8_t* tokens = memory + (kRows + min(first_token + lane % 8, call.tokens - 1)) * pitch +
                          own_part * kSumPart * 2 + lane / 8 * 16;
  float sum[4] = {};
  copy_async_wait<1>();
  __syncthreads();
  if (multiplies) multiply(sum, weights, tokens);
  copy_async_wait<0>();
  __syncthreads();
  if (multiplies) {
    multiply(sum, weights + kHalf * 2, tokens + kHalf * 2);
    send(sum, cluster_address(&parts[first_part + own_part][first_token / 8][lane], 0),
         cluster_address(&parts_there, 0));
  }
  if (rank != 0) return;
  barrier_wait(&parts_there, 0);

  if (scores_one) {
    const float* part = reinterpret_cast<const float*>(parts) + thread;
    constexpr int kStep = kTokens / 8 * 128;
    float total = part[0];
    for (int p = 1; p < call.parts; ++p) total += part[p * kStep];
    uint64_t result = pack(total, 0.0F);
    if (params.scoring == Scoring::kSigmoid) {
      const float score = gate_detail::sigmoid(total);
      result = pack(score, params.method == GateParams::Method::kNoAuxTc ? score + bias : score);
    }
    store_score(call.scores + own_token * params.experts + own_row, result);
  }
}

template <int kItems>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads)
    gate_product_kernel(const __grid_constant__ Call call) {
  extern __shared__ __align__(16) uint8_t memory[];  // lines of weights, then of tokens; then Last
  __shared__ Parts parts;
  __shared__ uint64_t parts_there;
  __shared__ bool paddings[kTokens];
  const GateParams& params = call.gate.params;
  const int thread = static_cast<int>(threadIdx.x);
  const auto rank = static_cast<int>(rank_in_cluster());
  const int n_first = static_cast<int>(blockIdx.x) / kCluster * kRows;
  const int first_part = rank * call.each, here = min(call.parts - first_part, call.each);
  {
    constexpr int kChunks = kSumPart / 8;  // of 16 bytes, of a row's part
    const int chunk = thread % kChunks;
#pragma unroll 1
    for (int p = 0; p < here; ++p) {
      const int k = (first_part + p) * kSumPart + chunk * 8;
#pragma unroll
      for (int line = thread / kChunks; line < kRows; line += kThreads / kChunks) {
        const bool inside = n_first + line < params.experts && k < call.k_stride;
        copy_async_16(memory + line * call.pitch() + p * kSumPart * 2 + chunk * 16,
                      inside ? call.weight + (n_first + line) * call.k_stride + k : call.weight, inside);
      }
    }
  }
  copy_async_commit();
  const bool chooses = blockIdx.x == 0;
  int32_t slot = thread;  // of the expert of this number; nobody writes it
  if (chooses && call.sort.slots != nullptr && thread < params.experts) slot = call.sort.slots[thread];
  if (rank == 0 && thread == 0) {
    barrier_init(&parts_there, 1);
    barrier_init_fence();
  }

#pragma unroll 1
  for (bool rehearsal = chooses;; rehearsal = false) {
    const int tokens = rehearsal ? 1 : call.tokens;
    // Of the rehearsal: where tokens' lines will come.
    uint8_t* const room = memory + (rehearsal ? kRows * call.pitch() : 0);
    const Last last(params, tokens, room);
    bool padding = false;
    if (!rehearsal) {
      multiply_and_score(call, memory, parts, parts_there, padding);
      if (!chooses) return;
      __syncthreads();  // the products are done, whose memory the choice takes
    }
    if (thread < params.experts) {
      last.slots[thread] = rehearsal ? thread : slot;
      last.tokens_of[thread] = 0;
    }
    if (thread < tokens) paddings[thread] = padding;
    if (rehearsal) {
      const Row row = gate_detail::row_in(last.rows, params);
      if (thread < params.experts) row.scores[thread] = row.choice[thread] = 0.0F;
      __syncthreads();
    } else {
      gather_scores(call, last);
    }
    choose_and_sort<kItems>(call, last, tokens, paddings,
                            rehearsal ? Outcome(params, room + Last::bytes(params, 1)) : Outcome(call));
    if (!rehearsal) return;
    __syncthreads();
  }
}

}  // namespace

bool gate_product_sm90(device::cuda::Stream& stream, const LinearArgs& product, const GateArgs& gate,
                       const ExpertSortArgs& sort, uint64_t* workspace) {
  const Weight& w = *product.weight;
  const Matrix& x = product.x;
  const auto parts = static_cast<int32_t>(ceil_div<int64_t>(w.k, kSumPart));
  const bool aligned = reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.stride % 8 == 0 && w.k % 8 == 0;
  if (!stream.gpu().hopper() || !w.parted || w.dtype != device::DType::kBF16 ||
      x.dtype != device::DType::kBF16 || !aligned || x.rows < 1 || x.rows > kTokens || w.n > kMostExperts ||
      parts > kMostParts)
    return false;
  Call call{};
  call.x = static_cast<const __nv_bfloat16*>(x.data);
  call.weight = static_cast<const __nv_bfloat16*>(w.data);
  call.x_stride = x.stride;
  call.k_stride = w.k_stride;
  call.k = static_cast<int32_t>(w.k);
  call.tokens = static_cast<int32_t>(x.rows);
  call.parts = parts;
  call.each = ceil_div(parts, kCluster);
  call.scores = workspace;
  call.gate = gate;
  call.sort = sort;
  constexpr int kMostBytes = (kRows + kTokens) * (kMostEach * kSumPart * 2 + 16);
  const int rehearsal = Last::bytes(gate.params, 1) + Outcome::bytes(sort);
  const int bytes = std::max(kRows * call.pitch() + std::max(call.tokens * call.pitch(), rehearsal),
                             Last::bytes(gate.params, call.tokens));
  FATHOM_CHECK(bytes <= kMostBytes, "{} bytes of shared memory", bytes);
  with_gate_items(gate.params, [&](auto items) {
    if constexpr (decltype(items)::value * 32 <= kMostExperts) {
      const auto kernel = gate_product_kernel<decltype(items)::value>;
      static device::cuda::SharedMemory memory;
      memory.allow(stream, kernel, kMostBytes);
      const auto clusters = static_cast<unsigned>(ceil_div<int64_t>(w.n, kRows));
      device::cuda::launch_early(stream, kernel, dim3(clusters * kCluster), dim3(kThreads), bytes, call);
    }
  });
  stream.launched("gate_product_and_sort");
  return true;
}

}  // namespace fathom::ops::cuda
