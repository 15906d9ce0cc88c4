// The 16-lane kernels in plain C++, instantiated once for all the attention tests.
#include "ops/attention/flash_kernel.h"
#include "ops/attention/testing.h"
#include "ops/vector/emulated16.h"

namespace fathom::ops {

const FlashKernels& emulated_flash_kernels() {
  static constexpr FlashKernels kEmulated = Flash<Emulated16>::kernels();
  return kEmulated;
}

}  // namespace fathom::ops
