// Which instructions the kernels may use on this processor. Each level includes the ones before it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace fathom::device {

enum class Isa : uint8_t {
  kReference,   // plain C++, the oracle
  kAvx2,        // AVX2, FMA, F16C
  kAvx512,      // AVX-512 F, BW, DQ, VL
  kAvx512Bf16,  // and AVX512_BF16, AVX512_VNNI, AVX512_VBMI
  kAmx,         // and AMX-TILE, AMX-BF16, AMX-INT8, permitted by the kernel
};

const char* to_string(Isa isa);

// The best level that this processor and its operating system offer. Asks the kernel for the AMX tiles once.
Isa detect_isa();

// "reference", "avx2", "avx512", "avx512-bf16", "amx" or "auto" (the detected one). An error for an unknown
// name or a level that the processor lacks.
Result<Isa> choose_isa(std::string_view name);

}  // namespace fathom::device
