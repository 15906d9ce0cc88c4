// FP8 E4M3 to bf16, exactly, by tables of the 128 magnitudes. Included into unnamed namespaces.

// The bf16 of a code without its sign (0 to 127). Exponent and mantissa move to their places and the
// exponent's bias is corrected; the eight denormals m * 2^-9 are normal in bf16.
constexpr uint16_t f8_to_bf16(unsigned code) {
  if (code >= 8) return static_cast<uint16_t>((code << 4) + (120 << 7));
  constexpr uint16_t kDenormals[8] = {0x0000, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60};
  return kDenormals[code];
}

// Its two bytes apart, each for one look-up in 128 bytes.
struct F8Tables {
  uint8_t lower[128];
  uint8_t upper[128];
};
// Of values times 2^power.
constexpr F8Tables make_f8_tables(int power) {
  F8Tables tables{};
  for (unsigned code = 0; code < 128; ++code) {
    const auto bf16 = static_cast<uint16_t>(code == 0 ? 0 : f8_to_bf16(code) + power * 128);
    tables.lower[code] = static_cast<uint8_t>(bf16);
    tables.upper[code] = static_cast<uint8_t>(bf16 >> 8);
  }
  return tables;
}
