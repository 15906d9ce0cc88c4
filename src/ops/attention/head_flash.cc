#include "ops/attention/head_flash.h"

namespace fathom::ops {

namespace {

// Queries that share one reading of a block of keys: enough that copying the block is a small part of an
// item.
constexpr int64_t kRange = 192;

}  // namespace

HeadPlan plan_heads(int64_t longest_row, int64_t work, int64_t lanes, int64_t threads) {
  HeadPlan plan;
  plan.columns = longest_row > lanes ? 2 * lanes : lanes;
  plan.range = round_up(std::min(longest_row, kRange), plan.columns);
  while (plan.range > plan.columns && work / plan.range < 4 * threads) {
    plan.range = round_up(plan.range / 2, plan.columns);
  }
  return plan;
}

size_t HeadFlash::cut(std::byte* memory) {
  ScratchCutter cutter(memory);
  packed_ = cutter.take<float>(plan_.range * key_width_);
  limits_ = cutter.take<float>(plan_.range);
  states_ = cutter.take<float>(plan_.range * (2 + value_width_));
  keys_ = cutter.take<float>(kKeyBlock * key_width_);
  values_ = cutter.take<float>(kKeyBlock * value_width_);
  weights_ = cutter.take<float>(kKeyBlock * plan_.columns);
  return cutter.used();
}

void HeadFlash::begin(const HeadQueries& queries, bool resume) {
  queries_ = queries;
  const int64_t columns = plan_.columns;
  for (int64_t i = 0; i < tiles(); ++i) {
    const int64_t first = i * columns, count = columns_of(i);
    float* packed = packed_ + first * key_width_;
    const FlashState tile = state(i);
    if (count < columns) std::memset(packed, 0, static_cast<size_t>(columns * key_width_) * sizeof(float));
    if (count < columns || !resume) {
      std::memset(tile.sums, 0, static_cast<size_t>(columns * value_width_) * sizeof(float));
    }
    kernels_.pack(queries.q + first * queries.q_stride, queries.q_stride, count, key_width_, factor_, packed,
                  columns);
    if (resume) {
      kernels_.transpose(queries.out + first * queries.out_stride, queries.out_stride, count, value_width_,
                         1.0F, tile.sums, columns);
    }
    for (int64_t c = 0; c < columns; ++c) {
      const bool kept = resume && c < count;
      tile.top[c] = kept ? queries.tops[first + c] : kLowest;
      tile.total[c] = kept ? queries.totals[first + c] : 0.0F;
      limits_[first + c] = static_cast<float>(queries.first_place + first + std::min(c, count - 1));
    }
  }
}

void HeadFlash::add_block(int64_t place, int64_t count) {
  for (int64_t i = 0; i < tiles(); ++i) {
    const int64_t first_limit = queries_.first_place + i * plan_.columns;
    const int64_t last_limit = first_limit + columns_of(i) - 1;
    if (place > last_limit) continue;
    FlashBlock block;
    block.columns = plan_.columns;
    block.queries = packed_ + i * plan_.columns * key_width_;
    block.limits = limits_ + i * plan_.columns;
    block.place = place;
    block.count = std::min(count, last_limit + 1 - place);
    block.masked = place + block.count - 1 > first_limit;
    block.keys = keys_;
    block.key_words = kernels_.pairs ? key_width_ / 2 : key_width_;
    block.values = values_;
    block.value_stride = block.value_width = value_width_;
    block.weights = weights_;
    block.state = state(i);
    kernels_.block(block);
  }
}

void HeadFlash::finish(bool more) {
  for (int64_t i = 0; i < tiles(); ++i) {
    const int64_t first = i * plan_.columns, count = columns_of(i);
    const FlashState tile = state(i);
    if (more) {
      std::copy(tile.top, tile.top + count, queries_.tops + first);
      std::copy(tile.total, tile.total + count, queries_.totals + first);
    } else {
      kernels_.normalise(tile, value_width_, plan_.columns);
    }
    kernels_.transpose(tile.sums, plan_.columns, value_width_, count, 1.0F,
                       queries_.out + first * queries_.out_stride, queries_.out_stride);
  }
}

}  // namespace fathom::ops
