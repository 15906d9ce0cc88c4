#include "engine/cuda/tree_kernels.h"

#include <algorithm>

#include "base/check.h"

namespace fathom::engine::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int32_t kNone = -1;

// Where entry `position` of a row's slot lies.
struct Places {
  const int32_t* block_tables;
  int64_t stride, page_size;

  __device__ int64_t operator()(int32_t slot, int32_t position) const {
    const int64_t page = block_tables[slot * stride + position / page_size];
    return page * page_size + position % page_size;
  }
};

// What is no number is not likely; no child is more likely than its parent.
__device__ float branch_logprob(float before, float logprob) {
  const float branch = before + fminf(logprob, 0.0F);
  return branch == branch && logprob == logprob ? branch : -INFINITY;
}

// How many of logprobs[count] come before the i-th: the likelier ones, and of equals the earlier ones.
__device__ int rank_of(const float* logprobs, int count, int i) {
  const float own = logprobs[i];
  int rank = 0;
  for (int j = 0; j < count; ++j) rank += logprobs[j] > own || (logprobs[j] == own && j < i) ? 1 : 0;
  return rank;
}

// A CTA has a row.
__global__ void __launch_bounds__(kThreads)
    grow_kernel(TreeMemory memory, TreeRows rows, int32_t pass, int32_t draft_state, Places places) {
  __shared__ int begin, active;
  const int64_t s = blockIdx.x;
  const TreeShape& shape = memory.shape;
  const int branches = shape.branches;
  const int64_t stride = memory.tail_stride();
  const int32_t drafts = rows.drafts[s];
  const int thread = static_cast<int>(threadIdx.x);
  const TreeMemory::Beams from = memory.beams[pass % 2], to = memory.beams[(pass + 1) % 2];
  int32_t* tokens = memory.tokens + s * shape.nodes();
  int32_t* parents = memory.parents + s * shape.nodes();
  float* logprobs = memory.logprobs + s * shape.nodes();
  if (thread == 0) {
    begin = pass == 0 ? 0 : memory.sizes[s];
    // Beams without a place come last.
    active = pass == 0 ? 1 : 0;
    for (int b = 0; pass > 0 && b < branches; ++b) active += from.nodes[s * branches + b] >= 0 ? 1 : 0;
    if (drafts == 0 || pass >= drafts) active = 0;
  }
  __syncthreads();
  const int added = active * branches;
  // The chosen token counts as the likeliest; the most likely others follow.
  for (int b = thread; b < active; b += kThreads) {
    const int64_t beam = pass == 0 ? s : s * branches + b;
    const int32_t parent = pass == 0 ? kNone : from.nodes[beam];
    const float before = parent < 0 ? 0.0F : logprobs[parent];
    const int32_t* top = memory.top_tokens + beam * branches;
    const float* top_logprobs = memory.top_logprobs + beam * branches;
    const int32_t chosen = memory.chosen[beam];
    for (int c = 0, next = 0; c < branches; ++c) {
      while (c > 0 && next < branches && top[next] == chosen) ++next;
      const int at = begin + b * branches + c;
      const bool there = c == 0 || (next < branches && top[next] >= 0);
      tokens[at] = c == 0 ? chosen : there ? top[next] : kNone;
      parents[at] = parent;
      logprobs[at] = !there ? -INFINITY : branch_logprob(before, top_logprobs[c == 0 ? 0 : next]);
      if (c > 0) ++next;
    }
  }
  const bool last = pass + 1 >= shape.passes;
  const int32_t used = pass == 0 ? 0 : memory.entries[s];
  for (int b = thread; b < branches && !last; b += kThreads) {
    const int64_t beam = s * branches + b;
    to.nodes[beam] = to.positions[beam] = to.logit_rows[beam] = to.draft_slots[beam] = kNone;
    to.ids[beam] = to.slots[beam] = 0;
    to.states[beam] = kNone;
    to.places[beam] = 0;
  }
  __syncthreads();
  const int32_t slot = rows.slots[s], start = rows.starts[s];
  // A pass after this one has room for entries [used, drafts].
  const int room = last || pass + 1 >= drafts ? 0 : min(branches, drafts + 1 - used);
  for (int i = thread; i < added; i += kThreads) {
    const int rank = rank_of(logprobs + begin, added, i);
    if (rank >= room || tokens[begin + i] < 0) continue;
    const int64_t beam = s * branches + rank;
    const int64_t parent = pass == 0 ? s : s * branches + i / branches;
    to.nodes[beam] = begin + i;
    to.ids[beam] = tokens[begin + i];
    to.positions[beam] = start + pass;
    to.slots[beam] = to.draft_slots[beam] = slot;
    to.states[beam] = draft_state + static_cast<int32_t>(parent);
    to.logit_rows[beam] = static_cast<int32_t>(beam);
    to.places[beam] = places(slot, start + used + rank);
    to.tail_starts[beam] = start;
    for (int d = 0; d < pass; ++d) to.tails[beam * stride + d] = from.tails[parent * stride + d];
    to.tails[beam * stride + pass] = to.places[beam];
  }
  if (thread == 0) {
    memory.sizes[s] = begin + added;
    memory.entries[s] = used + max(min(room, added), 0);
  }
}

// A CTA has a row.
__global__ void __launch_bounds__(kThreads)
    pick_kernel(TreeMemory memory, TreeRows rows, PickedTokens step, Places places) {
  constexpr int kMost = 64;
  __shared__ int32_t node_of[kMost], parent_rank[kMost], size[kMost], place_of[kMost], depth[kMost];
  const int64_t s = blockIdx.x;
  const TreeShape& shape = memory.shape;
  const int width = 1 + shape.guesses;
  const int thread = static_cast<int>(threadIdx.x);
  const int32_t drafts = rows.drafts[s];
  const int32_t first = rows.firsts[s], start = rows.starts[s], slot = rows.slots[s];
  const int nodes = drafts > 0 ? memory.sizes[s] : 0;
  const int32_t* tokens = memory.tokens + s * shape.nodes();
  const int32_t* parents = memory.parents + s * shape.nodes();
  const float* logprobs = memory.logprobs + s * shape.nodes();
  const int kept = min(min(nodes, shape.guesses), drafts);
  for (int i = thread; i < nodes; i += kThreads) {
    const int rank = rank_of(logprobs, nodes, i);
    if (rank < kept) node_of[rank] = i;
  }
  for (int i = thread; i < width; i += kThreads) {
    memory.place_parents[s * width + i] = kNone;
    memory.place_tokens[s * width + i] = kNone;
    if (drafts > 0 && i > 0) step.positions[first + i] = kNone;
  }
  __syncthreads();
  for (int i = thread; i < kept; i += kThreads) {
    const int32_t parent = parents[node_of[i]];
    parent_rank[i] = kNone;
    for (int j = 0; j < i; ++j) {
      if (node_of[j] == parent) parent_rank[i] = j;
    }
    size[i] = 1;
  }
  __syncthreads();
  if (thread == 0) {
    // Parents come before their children.
    for (int i = kept - 1; i >= 0; --i) {
      if (parent_rank[i] >= 0) size[parent_rank[i]] += size[i];
    }
    int next = 1;  // of the root; of the others, in `size` once their own is taken
    for (int i = 0; i < kept; ++i) {
      const int parent = parent_rank[i];
      int& from = parent < 0 ? next : size[parent];
      place_of[i] = from;
      from += size[i];
      size[i] = place_of[i] + 1;
      depth[i] = parent < 0 ? 1 : depth[parent] + 1;
    }
  }
  __syncthreads();
  const int64_t stride = memory.tail_stride();
  for (int i = thread; i < kept; i += kThreads) {
    const int place = place_of[i];
    const int32_t token = tokens[node_of[i]];
    memory.place_parents[s * width + place] = parent_rank[i] < 0 ? 0 : place_of[parent_rank[i]];
    memory.place_tokens[s * width + place] = token;
    step.ids[first + place] = token;
    step.positions[first + place] = start + depth[i];
    step.logit_rows[s * width + place] = first + place;
    int64_t* tail = memory.tails + (first + place) * stride;
    for (int ancestor = i, d = depth[i]; d > 0; --d, ancestor = parent_rank[ancestor]) {
      tail[d] = places(slot, start + place_of[ancestor]);
    }
    tail[0] = places(slot, start);
  }
  if (thread != 0) return;
  if (drafts > 0) memory.tails[first * stride] = places(slot, start);
  memory.logit_rows[s] = static_cast<int32_t>(s) * width;
  int32_t* guessed = memory.guessed + s * shape.branches;
  int count = 0;
  // In the order of their places.
  for (int i = 0; i < kept && count < shape.branches; ++i) {
    if (parent_rank[i] < 0) guessed[count++] = tokens[node_of[i]];
  }
  for (; count < shape.branches; ++count) guessed[count] = kNone;
}

// A CTA has a row in a layer; layer 0 of them also says which states are kept.
__global__ void __launch_bounds__(kThreads)
    settle_kernel(TreeMemory memory, TreeRows rows, const int32_t* tokens, SettledStates states,
                  uint8_t* cache, int64_t layer_bytes, int64_t entry_bytes, Places places) {
  const int64_t s = blockIdx.x;
  const int choices = memory.shape.choices(), width = memory.shape.width();
  const int32_t drafts = rows.drafts[s], slot = rows.slots[s], start = rows.starts[s];
  const bool says = blockIdx.y == 0 && threadIdx.x == 0;
  uint8_t* layer = cache + blockIdx.y * layer_bytes;
  for (int i = 0; i < choices; ++i) {
    // The entry of place i's token holds where the choice before it went on.
    const bool held = rows.firsts[s] >= 0 && tokens[i * rows.rows + s] >= 0;
    const int32_t place = held ? memory.logit_rows[i * rows.rows + s] - static_cast<int32_t>(s) * width : 0;
    if (says) {
      states.keep_from[s * choices + i] = held ? rows.firsts[s] + place : kNone;
      states.keep_to[s * choices + i] = held ? slot * choices + i : kNone;
    }
    if (!held || drafts == 0 || place == i) continue;
    const auto* from = reinterpret_cast<const uint32_t*>(layer + places(slot, start + place) * entry_bytes);
    auto* to = reinterpret_cast<uint32_t*>(layer + places(slot, start + i) * entry_bytes);
    for (int64_t word = threadIdx.x; word < entry_bytes / 4; word += kThreads) to[word] = from[word];
    __syncthreads();  // a later one may come from where this one went
  }
}

Places places_of(const SlotTables& tables, int64_t page_size) {
  return {tables.block_tables, tables.stride, page_size};
}

}  // namespace

int32_t TreeShape::guesses_of(int32_t drafts) const {
  int32_t nodes = 0, used = 0, beams = 1;
  for (int32_t pass = 0; pass < std::min(passes, drafts); ++pass) {
    nodes += beams * branches;
    beams = std::min({branches, beams * branches, drafts + 1 - used});
    used += beams;
  }
  return std::min({nodes, guesses, drafts});
}

Result<TreeMemory> TreeMemory::allocate(const TreeShape& shape, int64_t rows, int64_t step_tokens,
                                        device::cuda::DeviceArena& arena) {
  FATHOM_CHECK(shape.guesses < 64, "{} guesses", shape.guesses);
  TreeMemory m;
  m.shape = shape;
  Result<void> outcome = {};
  const auto take = [&]<class T>(T*& to, int64_t count) {
    if (!outcome.ok()) return;
    auto memory = arena.allocate_array<T>(count);
    if (!memory.ok()) {
      static_cast<void>(outcome = memory.error().with_context("trees of guesses"));
      return;
    }
    to = *memory;
  };
  const int64_t beams = rows * shape.branches;
  for (int32_t** array : {&m.tokens, &m.parents}) take(*array, rows * shape.nodes());
  take(m.logprobs, rows * shape.nodes());
  for (int32_t** array : {&m.sizes, &m.entries}) take(*array, rows);
  take(m.chosen, beams);
  take(m.chosen_logprobs, beams);
  take(m.top_tokens, beams * shape.branches);
  take(m.top_logprobs, beams * shape.branches);
  for (Beams& b : m.beams) {
    for (int32_t** array : {&b.nodes, &b.positions, &b.ids, &b.slots, &b.states, &b.logit_rows,
                            &b.draft_slots, &b.tail_starts}) {
      take(*array, beams);
    }
    take(b.places, beams);
    take(b.tails, beams * m.tail_stride());
  }
  for (int32_t** array : {&m.place_tokens, &m.place_parents}) take(*array, rows * shape.width());
  take(m.tails, step_tokens * m.tail_stride());
  take(m.logit_rows, rows * shape.choices());
  take(m.guessed, rows * shape.choices() * shape.branches);
  FATHOM_TRY(outcome);
  return m;
}

void grow_trees(device::cuda::Stream& stream, const TreeMemory& memory, const TreeRows& rows, int32_t pass,
                int32_t draft_state, const SlotTables& tables, int64_t page_size) {
  if (rows.rows == 0) return;
  grow_kernel<<<static_cast<unsigned>(rows.rows), kThreads, 0, stream.handle()>>>(
      memory, rows, pass, draft_state, places_of(tables, page_size));
  stream.launched("grow trees");
}

void pick_trees(device::cuda::Stream& stream, const TreeMemory& memory, const TreeRows& rows,
                const PickedTokens& step, const SlotTables& tables, int64_t page_size) {
  if (rows.rows == 0) return;
  pick_kernel<<<static_cast<unsigned>(rows.rows), kThreads, 0, stream.handle()>>>(
      memory, rows, step, places_of(tables, page_size));
  stream.launched("pick trees");
}

void settle_trees(device::cuda::Stream& stream, const TreeMemory& memory, const TreeRows& rows,
                  const int32_t* tokens, const SettledStates& states, const model::cuda::KvPool& cache,
                  int64_t layers, const SlotTables& tables) {
  if (rows.rows == 0) return;
  const ops::cuda::CacheView& view = cache.layer(0);
  const int64_t entry_bytes = view.width * device::size_of(view.dtype);
  const int64_t layer_bytes = cache.num_pages() * view.page_size * entry_bytes;
  FATHOM_CHECK(entry_bytes % 4 == 0, "an entry of {} bytes", entry_bytes);
  const dim3 grid(static_cast<unsigned>(rows.rows), static_cast<unsigned>(layers));
  settle_kernel<<<grid, kThreads, 0, stream.handle()>>>(memory, rows, tokens, states,
                                                        static_cast<uint8_t*>(view.data), layer_bytes,
                                                        entry_bytes, places_of(tables, view.page_size));
  stream.launched("settle trees");
}

}  // namespace fathom::engine::cuda
