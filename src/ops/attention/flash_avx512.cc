#include "ops/attention/flash_kernel.h"
#include "ops/vector/avx512.h"

namespace fathom::ops {

constinit const FlashKernels kFlashAvx512 = Flash<Avx512>::kernels();

}  // namespace fathom::ops
