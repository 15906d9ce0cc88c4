#include "ops/extend_attention/kept_keys.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace fathom::ops {

Result<KeptKeys> KeptKeys::create(int64_t layers, int64_t pages, int64_t page_size, int64_t width) {
  FATHOM_CHECK(layers > 0 && pages > 0 && page_size > 0 && width > 0, "{} layers, {} pages of {} x {}",
               layers, pages, page_size, width);
  KeptKeys kept;
  const auto entries = static_cast<size_t>(pages * layers * page_size);
  FATHOM_ASSIGN(kept.memory_, device::Buffer::allocate(entries * static_cast<size_t>(width) * sizeof(float)));
  kept.layers_ = layers;
  kept.page_size_ = page_size;
  kept.width_ = width;
  kept.slots_.resize(static_cast<size_t>(pages));
  kept.filled_.resize(static_cast<size_t>(pages * layers));
  return kept;
}

void KeptKeys::written(int64_t place) {
  const int32_t slot = slot_of(place / page_size_);
  if (slot < 0) return;
  const auto before = static_cast<int32_t>(place % page_size_);
  for (int64_t layer = 0; layer < layers_; ++layer)
    filled(slot, layer) = std::min(filled(slot, layer), before);
}

int64_t KeptKeys::count(int64_t layer, int64_t page) {
  const int32_t slot = slot_of(page);
  if (slot < 0) return 0;
  slots_[static_cast<size_t>(slot)].used = pass_;
  return filled(slot, layer);
}

float* KeptKeys::keep(int64_t layer, int64_t page, int64_t offset, int64_t count) {
  FATHOM_CHECK(offset >= 0 && count > 0 && offset + count <= page_size_, "entries {} to {} of a page of {}",
               offset, offset + count, page_size_);
  int32_t slot = slot_of(page);
  if (slot < 0 && offset == 0) slot = take_slot(page);
  if (slot < 0 || filled(slot, layer) != offset) return nullptr;
  slots_[static_cast<size_t>(slot)].used = pass_;
  filled(slot, layer) += static_cast<int32_t>(count);
  return slot_memory(slot, layer) + offset * width_;
}

int32_t KeptKeys::take_slot(int64_t page) {
  const auto idle = [this](const Slot& slot) { return slot.page < 0 || slot.used + kIdle < pass_; };
  const auto found = std::ranges::find_if(slots_, idle);
  if (found == slots_.end()) return -1;
  if (found->page >= 0) slot_of_[static_cast<size_t>(found->page)] = -1;
  const auto slot = static_cast<int32_t>(found - slots_.begin());
  found->page = page;
  if (page >= static_cast<int64_t>(slot_of_.size())) slot_of_.resize(static_cast<size_t>(page) + 1, -1);
  slot_of_[static_cast<size_t>(page)] = slot;
  for (int64_t layer = 0; layer < layers_; ++layer) filled(slot, layer) = 0;
  return slot;
}

}  // namespace fathom::ops
