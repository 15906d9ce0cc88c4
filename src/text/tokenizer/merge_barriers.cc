#include "text/tokenizer/merge_barriers.h"

#include <algorithm>

namespace fathom::text {
namespace {

bool is_continuation(char byte) {
  return (static_cast<uint8_t>(byte) & 0xC0) == 0x80;
}

// A whole character, or at the ends of a token a part of one.
struct Unit {
  std::string_view bytes;
  bool whole;
};

}  // namespace

MergeBarriers::MergeBarriers(const Vocabulary& vocabulary)
    : pairs_(size_t{1} << kLogPairs), joins_part_after_(0x110000), joins_part_before_(0x110000) {
  for (int32_t id = 0; id < vocabulary.size(); ++id) add_token(vocabulary.bytes(id));
}

void MergeBarriers::add_token(std::string_view token) {
  std::vector<Unit> units;
  for (size_t pos = 0; pos < token.size();) {
    size_t length = 0;
    if (is_continuation(token[pos])) {
      while (pos + length < token.size() && is_continuation(token[pos + length])) ++length;
    } else {
      length = std::min(utf8_length(token[pos]), token.size() - pos);
    }
    const std::string_view bytes = token.substr(pos, length);
    units.push_back({bytes, is_valid_utf8(bytes)});
    pos += length;
  }
  for (size_t i = 1; i < units.size(); ++i) {
    const Unit& left = units[i - 1];
    const Unit& right = units[i];
    const auto code_point = [](const Unit& unit) {
      return decode_utf8(unit.bytes.data(), unit.bytes.size());
    };
    if (left.whole && right.whole) {
      pairs_[pair_bit(code_point(left), code_point(right))] = true;
    } else if (left.whole) {
      joins_part_after_[code_point(left)] = true;
    } else if (right.whole) {
      joins_part_before_[code_point(right)] = true;
    } else {
      joined_parts_.set(byte_pair(left.bytes.back(), right.bytes.front()));
    }
  }
}

}  // namespace fathom::text
