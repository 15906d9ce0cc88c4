#include "text/tokenizer/vocabulary.h"

#include <bit>
#include <functional>

#include "base/check.h"

namespace fathom::text {

bool Vocabulary::set_bytes(int32_t id, std::string_view bytes) {
  FATHOM_CHECK(id >= 0 && id < kMaxSize, "id={}", id);
  if (id >= size()) places_.resize(static_cast<size_t>(id) + 1);
  Place& place = places_[id];
  if (place.present) return false;
  place = {blob_.size(), static_cast<uint32_t>(bytes.size()), true};
  blob_ += bytes;
  return true;
}

void Vocabulary::index(const std::vector<int32_t>& ids) {
  slots_.assign(std::bit_ceil(ids.size() * 2 + 1), -1);
  const size_t mask = slots_.size() - 1;
  for (const int32_t id : ids) {
    size_t slot = std::hash<std::string_view>{}(bytes(id)) & mask;
    while (slots_[slot] >= 0) slot = (slot + 1) & mask;
    slots_[slot] = id;
  }
}

int32_t Vocabulary::find(std::string_view wanted) const {
  if (slots_.empty()) return -1;
  const size_t mask = slots_.size() - 1;
  for (size_t slot = std::hash<std::string_view>{}(wanted)&mask; slots_[slot] >= 0;
       slot = (slot + 1) & mask) {
    if (bytes(slots_[slot]) == wanted) return slots_[slot];
  }
  return -1;
}

}  // namespace fathom::text
