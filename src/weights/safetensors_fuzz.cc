// Any bytes are either refused or give tensors that lie inside them.
#include <cstdint>
#include <cstdlib>

#include "weights/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  auto tensors = fathom::weights::parse_safetensors({bytes, size}, "fuzz");
  if (!tensors.ok()) return 0;
  for (const auto& tensor : *tensors) {
    if (tensor.data < bytes || tensor.bytes > size || tensor.data + tensor.bytes > bytes + size) std::abort();
  }
  return 0;
}
