#include "ops/attention/flash_kernel.h"
#include "ops/vector/avx512bf16.h"

namespace fathom::ops {

constinit const FlashKernels kFlashAvx512Bf16 = Flash<Avx512Bf16>::kernels();

}  // namespace fathom::ops
