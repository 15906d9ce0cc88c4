// Any bytes: a name or an error, and a name only out of bytes that hold it.
#include <cstddef>
#include <cstdint>

#include "text/logits/pickled_class.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto found = fathom::text::read_pickled_class(bytes);
  if (!found.ok()) return 0;
  FATHOM_CHECK(bytes.find(found->module) != std::string_view::npos, "{}", found->module);
  FATHOM_CHECK(bytes.find(found->name) != std::string_view::npos, "{}", found->name);
  return 0;
}
