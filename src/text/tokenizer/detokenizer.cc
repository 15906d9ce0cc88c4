#include "text/tokenizer/detokenizer.h"

#include <algorithm>
#include <utility>

#include "text/tokenizer/utf8.h"

namespace fathom::text {

std::string Detokenizer::push(std::span<const int32_t> ids) {
  std::string bytes = std::exchange(pending_, {});
  for (const int32_t id : ids) {
    const bool skipped = skip_special_ && tokenizer_.is_special(id) &&
                         std::find(kept_.begin(), kept_.end(), id) == kept_.end();
    if (!skipped) bytes += tokenizer_.token_bytes(id);
  }
  const size_t whole = bytes.size() - incomplete_utf8_suffix(bytes);
  pending_ = bytes.substr(whole);
  bytes.resize(whole);
  return is_valid_utf8(bytes) ? bytes : repair_utf8(bytes);
}

std::string Detokenizer::finish() {
  return repair_utf8(std::exchange(pending_, {}));
}

}  // namespace fathom::text
