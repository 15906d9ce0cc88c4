// Element types of tensors, and the scalar conversions between them.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace fathom::device {

enum class DType : uint8_t { kF32, kBF16, kF16, kF8E4M3, kF8E5M2, kI32 };

constexpr int64_t size_of(DType type) {
  switch (type) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
    case DType::kF8E4M3:
    case DType::kF8E5M2:
      return 1;
  }
  return 0;
}

constexpr const char* to_string(DType type) {
  switch (type) {
    case DType::kF32:
      return "float32";
    case DType::kBF16:
      return "bfloat16";
    case DType::kF16:
      return "float16";
    case DType::kF8E4M3:
      return "float8_e4m3";
    case DType::kF8E5M2:
      return "float8_e5m2";
    case DType::kI32:
      return "int32";
  }
  return "?";
}

// bfloat16 as its 16 bits: the upper half of a float32.
using bf16 = uint16_t;

inline float bf16_to_f32(bf16 bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Round to nearest, ties to even; a NaN stays a (quiet) NaN.
inline bf16 f32_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<bf16>((bits >> 16) | 0x40U);
  return static_cast<bf16>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

// IEEE binary16.
inline float f16_to_f32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fU;
  const uint32_t mantissa = bits & 0x3ffU;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13));
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

// E4M3 without infinities ("fn"): bias 7, largest 448, S.1111.111 is NaN (OCP FP8, "FP8 formats for deep
// learning").
inline float f8e4m3_to_f32(uint8_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80U) << 24;
  const uint32_t exponent = (bits >> 3) & 0xfU;
  const uint32_t mantissa = bits & 0x7U;
  if (exponent == 15 && mantissa == 7) return std::bit_cast<float>(sign | 0x7fc00000U);
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-9F;
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 120) << 23) | (mantissa << 20));
}

// E5M2: the upper half of a binary16 (OCP FP8).
inline float f8e5m2_to_f32(uint8_t bits) {
  return f16_to_f32(static_cast<uint16_t>(bits << 8));
}

// Element `index` of an array of `type`, as float32. For loading and references, not for kernels.
inline float load_as_f32(const void* data, DType type, int64_t index) {
  const auto* bytes = static_cast<const uint8_t*>(data) + index * size_of(type);
  switch (type) {
    case DType::kF32: {
      float value;
      std::memcpy(&value, bytes, 4);
      return value;
    }
    case DType::kBF16: {
      uint16_t bits;
      std::memcpy(&bits, bytes, 2);
      return bf16_to_f32(bits);
    }
    case DType::kF16: {
      uint16_t bits;
      std::memcpy(&bits, bytes, 2);
      return f16_to_f32(bits);
    }
    case DType::kF8E4M3:
      return f8e4m3_to_f32(*bytes);
    case DType::kF8E5M2:
      return f8e5m2_to_f32(*bytes);
    case DType::kI32: {
      int32_t value;
      std::memcpy(&value, bytes, 4);
      return static_cast<float>(value);
    }
  }
  return 0.0F;
}

}  // namespace fathom::device
