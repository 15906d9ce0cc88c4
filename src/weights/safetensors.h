// Reads a safetensors file: 8 bytes of header length (little endian), a JSON header that gives each tensor's
// dtype, shape and bytes, then the bytes. The file is mapped, never copied; everything the header says is
// checked before it is believed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "device/dtype.h"

namespace fathom::weights {

struct TensorView {
  std::string name;
  std::string dtype_name;              // as the file spells it: "BF16", "F8_E4M3", ...
  std::optional<device::DType> dtype;  // nothing for types that Fathom does not compute with
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;  // densely packed, not necessarily aligned to the element
  size_t bytes = 0;
};

// "BF16 [576, 2048]"
std::string describe(const TensorView& tensor);

// The tensors of a whole file image, in the header's order, their data pointing into `image`. `file` names it
// in errors (kDataLoss: truncated or corrupt).
Result<std::vector<TensorView>> parse_safetensors(std::span<const std::byte> image, const std::string& file);

// A mapped file. Movable; the views die with it.
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&& other) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&& other) noexcept;
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::vector<TensorView>& tensors() const { return tensors_; }

 private:
  SafetensorsFile() = default;

  std::string path_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::vector<TensorView> tensors_;
};

}  // namespace fathom::weights
