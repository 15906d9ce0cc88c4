#include "device/tensor.h"

namespace fathom::device {

std::string describe(const Tensor& tensor) {
  std::string text = std::string(to_string(tensor.dtype)) + " [";
  for (int i = 0; i < tensor.rank; ++i) text += (i > 0 ? ", " : "") + std::to_string(tensor.dim(i));
  return text + "]";
}

void check_tensor(const char* name, const Tensor& tensor, DType dtype, std::initializer_list<int64_t> dims) {
  bool good = tensor.dtype == dtype && tensor.rank == static_cast<int>(dims.size());
  int i = 0;
  std::string wanted;
  for (const int64_t dim : dims) {
    if (good && dim >= 0 && tensor.dim(i) != dim) good = false;
    wanted += (i > 0 ? ", " : "") + (dim < 0 ? std::string("*") : std::to_string(dim));
    ++i;
  }
  FATHOM_CHECK(good, "{}: got {}, expected {} [{}]", name, describe(tensor), to_string(dtype), wanted);
  FATHOM_CHECK(tensor.numel() == 0 || tensor.data != nullptr, "{}: no data", name);
}

}  // namespace fathom::device
