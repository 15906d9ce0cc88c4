#include "sample/row_loops.h"

namespace fathom::sample {

extern const RowKernels kAvx2RowKernels;
const RowKernels kAvx2RowKernels = kLoops;

}  // namespace fathom::sample
