// The 16-lane kernels in plain C++, of floats and of bf16 pairs, instantiated once for all the attention
// tests.
#include "ops/attention/flash_kernel.h"
#include "ops/attention/testing.h"
#include "ops/vector/emulated16.h"

namespace fathom::ops {

const FlashKernels& emulated_flash_kernels() {
  static constexpr FlashKernels kEmulated = Flash<Emulated16>::kernels();
  return kEmulated;
}

const FlashKernels& emulated_pair_flash_kernels() {
  static constexpr FlashKernels kEmulated = Flash<EmulatedBf16x16>::kernels();
  return kEmulated;
}

}  // namespace fathom::ops
