#include "sample/row_loops.h"

namespace fathom::sample {

extern const RowKernels kAvx512RowKernels;
const RowKernels kAvx512RowKernels = kLoops;

}  // namespace fathom::sample
