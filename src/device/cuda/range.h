// Names for profilers (NVTX): a step, and each op in it. Free where no profiler listens, and left out where
// the toolkit has no NVTX.
#pragma once

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define FATHOM_HAS_NVTX 1
#endif

namespace fathom::device::cuda {

// From construction to destruction, on the calling thread.
class Range {
 public:
#ifdef FATHOM_HAS_NVTX
  explicit Range(const char* name) { nvtxRangePushA(name); }
  ~Range() { nvtxRangePop(); }
#else
  explicit Range(const char* /*name*/) {}
#endif
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

inline void mark(const char* op) {
#ifdef FATHOM_HAS_NVTX
  nvtxMarkA(op);
#else
  static_cast<void>(op);
#endif
}

}  // namespace fathom::device::cuda
