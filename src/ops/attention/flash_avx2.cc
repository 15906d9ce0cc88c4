#include "ops/attention/flash_kernel.h"
#include "ops/vector/avx2.h"

namespace fathom::ops {

constinit const FlashKernels kFlashAvx2 = Flash<Avx2>::kernels();

}  // namespace fathom::ops
