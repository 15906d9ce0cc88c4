// Random values straight into a panel (layout.h), 16 columns side by side. Included once by each file that
// builds it, into its unnamed namespace, so that no other file can meet code built for the wrong processor.
// Plain loops that compilers turn into vectors; the same bits on every machine.

// A hash of 32 bits (shifts and two odd factors), keyed by two words of the column, so that no two columns
// run through the same numbers.
inline uint32_t draw(uint32_t first, uint32_t second, uint32_t k) {
  uint32_t x = first + k * 0x9e3779b9U;
  x = (x ^ (x >> 16)) * 0x85ebca6bU;
  x = ((x + second) ^ (x >> 13)) * 0xc2b2ae35U;
  return x ^ (x >> 16);
}

// The sum of four random bytes less its mean, -510 .. 510.
inline float level(uint32_t bits) {
  const uint32_t pairs = (bits & 0x00ff00ffU) + ((bits >> 8) & 0x00ff00ffU);
  return static_cast<float>(static_cast<int32_t>((pairs & 0xffffU) + (pairs >> 16)) - 510);
}

inline uint32_t bits_of(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// Finite values only; to nearest, ties to even.
inline uint32_t bf16_bits(float value) {
  const uint32_t bits = bits_of(value);
  return (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
}

// |value| <= 448; to nearest, ties to even. Below 2^-6, codes are steps of 2^-9: adding 2^14 rounds to them.
inline uint32_t f8_bits(float value) {
  const uint32_t all = bits_of(value);
  const uint32_t bits = all & 0x7fffffffU;
  const uint32_t normal = ((bits + 0x7ffffU + ((bits >> 20) & 1U)) >> 20) - (120U << 3);
  const float magnitude = value < 0.0F ? -value : value;
  const uint32_t denormal = bits_of(magnitude + 16384.0F) - bits_of(16384.0F);
  return (magnitude < 0x1p-6F ? denormal : normal) | (all >> 24 & 0x80U);
}

inline void fill_f32(const RandomColumns& c, uint32_t k, float* out) {
  for (int i = 0; i < 16; ++i) out[i] = level(draw(c.first[i], c.second[i], k)) * c.unit;
}
inline void fill_bf16(const RandomColumns& c, uint32_t k, uint32_t* out) {
  for (int i = 0; i < 16; ++i) {
    const uint32_t low = bf16_bits(level(draw(c.first[i], c.second[i], k)) * c.unit);
    const uint32_t high = bf16_bits(level(draw(c.first[i], c.second[i], k + 1)) * c.unit);
    out[i] = low | high << 16;
  }
}
// Of a checkpoint's weights hardly one in a hundred thousand is 0; one in 370 is of the level 0, which
// becomes a quarter of a level, 0.21875. (Told by the code: a comparison of floats would not become vectors.)
inline void fill_f8(const RandomColumns& c, uint32_t k, uint32_t* out) {
  for (int i = 0; i < 16; ++i) {
    const auto value = [&](uint32_t at) {
      const uint32_t code = f8_bits(level(draw(c.first[i], c.second[i], at)) * (448.0F / 510.0F));
      return code == 0 ? 0x26U : code;
    };
    out[i] = value(k) | value(k + 2) << 8 | value(k + 1) << 16 | value(k + 3) << 24;
  }
}

// `rows` 64-byte rows of a panel.
inline void fill_rows(const RandomColumns& columns, device::DType dtype, int64_t rows, uint8_t* out) {
  for (int64_t r = 0; r < rows; ++r) {
    const auto row = static_cast<uint32_t>(r);
    alignas(64) uint32_t words[16];
    if (dtype == device::DType::kBF16) {
      fill_bf16(columns, 2 * row, words);
    } else if (dtype == device::DType::kF8E4M3) {
      fill_f8(columns, 4 * row, words);
    } else {
      float values[16];
      fill_f32(columns, row, values);
      __builtin_memcpy(words, values, sizeof(words));
    }
    __builtin_memcpy(out + 64 * r, words, sizeof(words));
  }
}
