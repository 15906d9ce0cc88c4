#include "sample/row_kernels.h"

#include "device/cpu/isa.h"
#include "sample/row_loops.h"

namespace fathom::sample {

// In row_kernels_avx2.cc and row_kernels_avx512.cc.
extern const RowKernels kAvx2RowKernels;
extern const RowKernels kAvx512RowKernels;

const RowKernels kPlainRowKernels = kLoops;

const RowKernels* avx2_row_kernels() {
  return device::detect_isa() >= device::Isa::kAvx2 ? &kAvx2RowKernels : nullptr;
}
const RowKernels* avx512_row_kernels() {
  return device::detect_isa() >= device::Isa::kAvx512 ? &kAvx512RowKernels : nullptr;
}

const RowKernels& row_kernels() {
  static const RowKernels& chosen = avx512_row_kernels() != nullptr ? *avx512_row_kernels()
                                    : avx2_row_kernels() != nullptr ? *avx2_row_kernels()
                                                                    : kPlainRowKernels;
  return chosen;
}

}  // namespace fathom::sample
