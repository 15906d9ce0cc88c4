// Token bytes <-> token id, in two flat arrays and one open-addressed table.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::text {

class Vocabulary {
 public:
  // Ids are below this, so that a pair of ids and a merge rank fit one 64-bit word (bpe.h).
  static constexpr int32_t kMaxSize = 1 << 21;

  // Stores the bytes of `id`, in [0, kMaxSize). False if the id has bytes already. Ids may come in any order;
  // those left out have no bytes.
  bool set_bytes(int32_t id, std::string_view bytes);

  // Makes find() answer for every id of `ids`. No two of them may have the same bytes; call once, after
  // set_bytes.
  void index(const std::vector<int32_t>& ids);

  // One more than the highest id.
  int32_t size() const { return static_cast<int32_t>(places_.size()); }
  bool contains(int32_t id) const { return id >= 0 && id < size() && places_[id].present; }
  // Empty for an id that is not there.
  std::string_view bytes(int32_t id) const {
    if (!contains(id)) return {};
    return std::string_view(blob_).substr(places_[id].offset, places_[id].length);
  }
  // The indexed id with exactly these bytes, or -1.
  int32_t find(std::string_view bytes) const;

 private:
  struct Place {
    uint64_t offset = 0;
    uint32_t length = 0;
    bool present = false;
  };

  std::string blob_;
  std::vector<Place> places_;
  std::vector<int32_t> slots_;  // a power of two, at most half full; -1 is free
};

}  // namespace fathom::text
