#include "device/cpu/isa.h"

#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <array>

namespace fathom::device {
namespace {

constexpr std::array<Isa, 5> kAll = {Isa::kReference, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx};

#if defined(__x86_64__)

struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d) == 0) return {};
  return r;
}

uint64_t enabled_state() {
  if ((cpuid(1, 0).c & (1U << 27)) == 0) return 0;  // no OSXSAVE
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

bool has(unsigned word, int bit) {
  return (word >> bit & 1U) != 0;
}

bool permit_amx() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

Isa detect() {
  const uint64_t state = enabled_state();
  const Registers one = cpuid(1, 0);
  const Registers seven = cpuid(7, 0);
  const Registers seven_one = cpuid(7, 1);
  const bool ymm = (state & 0x6U) == 0x6U;
  const bool zmm = (state & 0xe6U) == 0xe6U;
  const bool tiles = (state & 0x60000U) == 0x60000U;
  if (!ymm || !has(one.c, 12) || !has(one.c, 29) || !has(seven.b, 5) || !has(seven.b, 8))
    return Isa::kReference;
  if (!zmm || !has(seven.b, 16) || !has(seven.b, 17) || !has(seven.b, 30) || !has(seven.b, 31))
    return Isa::kAvx2;
  // bf16, VNNI and VBMI.
  if (!has(seven_one.a, 5) || !has(seven.c, 11) || !has(seven.c, 1)) return Isa::kAvx512;
  if (!tiles || !has(seven.d, 22) || !has(seven.d, 24) || !has(seven.d, 25) || !permit_amx())
    return Isa::kAvx512Bf16;
  return Isa::kAmx;
}
#else
Isa detect() {
  return Isa::kReference;
}
#endif

}  // namespace

const char* to_string(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return "reference";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512-bf16";
    case Isa::kAmx:
      return "amx";
  }
  return "?";
}

Isa detect_isa() {
  static const Isa isa = detect();
  return isa;
}

Result<Isa> choose_isa(std::string_view name) {
  const Isa best = detect_isa();
  if (name == "auto") return best;
  std::string names = "auto";
  for (const Isa isa : kAll) {
    if (name == to_string(isa)) {
      if (isa > best) {
        return error(ErrorCode::kUnsupported, "this processor has no {}; its best level is {}", name,
                     to_string(best));
      }
      return isa;
    }
    names += std::string(", ") + to_string(isa);
  }
  return error(ErrorCode::kInvalidArgument, "unknown instruction set '{}'; expected one of {}", name, names);
}

}  // namespace fathom::device
