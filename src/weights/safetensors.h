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
#include <utility>
#include <vector>

#include "base/result.h"
#include "device/dtype.h"
#include "weights/mapped_file.h"

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

  const std::string& path() const { return file_.path(); }
  const std::vector<TensorView>& tensors() const { return tensors_; }
  std::span<const std::byte> bytes() const { return file_.bytes(); }
  // To be asked after tensors were read: kDataLoss when the file shrank meanwhile (mapped_file.h).
  Result<void> intact() const { return file_.intact(); }

 private:
  SafetensorsFile(MappedFile file, std::vector<TensorView> tensors)
      : file_(std::move(file)), tensors_(std::move(tensors)) {}

  MappedFile file_;
  std::vector<TensorView> tensors_;
};

}  // namespace fathom::weights
