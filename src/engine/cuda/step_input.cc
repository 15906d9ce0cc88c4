#include "engine/cuda/step_input.h"

#include <cstring>

#include "base/math.h"

namespace fathom::engine::cuda {
namespace {

int64_t aligned(int64_t bytes) {
  return round_up<int64_t>(bytes, 16);
}

}  // namespace

StepLayout::StepLayout(int64_t tokens_in, int64_t logit_rows_in)
    : tokens(tokens_in), logit_rows(logit_rows_in) {
  int64_t at = 0;
  const auto take = [&](int64_t bytes) {
    const int64_t begin = at;
    at += aligned(bytes);
    return begin;
  };
  ids = take(tokens * 4);
  positions = take(tokens * 4);
  slots = take(tokens * 4);
  places = take(tokens * 8);
  rows = take(logit_rows * 4);
  row_slots = take(logit_rows * 4);
  fixed_bytes = at;
}

void StepInput::clear() {
  ids.clear();
  positions.clear();
  slots.clear();
  places.clear();
  logit_rows.clear();
  row_slots.clear();
  updates.clear();
  extend_rows.clear();
  extend_tokens = 0;
  first.clear();
  sampling.clear();
  last_places.clear();
}

int64_t StepInput::bytes(const StepLayout& layout, const std::vector<model::cuda::ExtendPass>& passes) const {
  int64_t total = layout.fixed_bytes + aligned(static_cast<int64_t>(updates.size() * sizeof(SlotUpdate)));
  for (const auto& pass : passes)
    total += aligned(static_cast<int64_t>(pass.rows.size() * sizeof(ops::cuda::ExtendRow)));
  return total;
}

int64_t StepInput::write(const StepLayout& layout, std::byte* to, std::byte* device,
                         std::vector<model::cuda::ExtendPass>& passes,
                         const SlotUpdate** device_updates) const {
  const auto put = [&]<class T>(int64_t offset, const std::vector<T>& values, int64_t padded, T padding) {
    T* out = reinterpret_cast<T*>(to + offset);
    std::memcpy(out, values.data(), values.size() * sizeof(T));
    for (auto i = static_cast<int64_t>(values.size()); i < padded; ++i) out[i] = padding;
  };
  put(layout.ids, ids, layout.tokens, int32_t{0});
  put(layout.positions, positions, layout.tokens, int32_t{-1});
  put(layout.slots, slots, layout.tokens, int32_t{0});
  put(layout.places, places, layout.tokens, int64_t{0});
  put(layout.rows, logit_rows, layout.logit_rows, int32_t{-1});
  put(layout.row_slots, row_slots, layout.logit_rows, int32_t{-1});
  int64_t at = layout.fixed_bytes;
  *device_updates = reinterpret_cast<const SlotUpdate*>(device + at);
  std::memcpy(to + at, updates.data(), updates.size() * sizeof(SlotUpdate));
  at += aligned(static_cast<int64_t>(updates.size() * sizeof(SlotUpdate)));
  for (auto& pass : passes) {
    const size_t size = pass.rows.size() * sizeof(ops::cuda::ExtendRow);
    std::memcpy(to + at, pass.rows.data(), size);
    pass.device_rows = reinterpret_cast<const ops::cuda::ExtendRow*>(device + at);
    at += aligned(static_cast<int64_t>(size));
  }
  return at;
}

}  // namespace fathom::engine::cuda
