// FP8 E4M3 to bf16, exactly, many at a time: for vector operations W on words of 16 bits (bf16_avx512.h; the
// test has plain ones). Included into unnamed namespaces.

// Each word holds two FP8 values; takes the upper (kTop) or the lower. Exponent and mantissa move to their
// places in bf16 and the exponent's bias is corrected; the eight denormals (exponent 0) come from a table.
template <class W, bool kTop>
typename W::Vec f8_to_bf16(typename W::Vec words) {
  using Vec = typename W::Vec;
  alignas(16) static constexpr uint16_t kDenormals[8] = {0x0000, 0x3b00, 0x3b80, 0x3bc0,
                                                         0x3c00, 0x3c20, 0x3c40, 0x3c60};  // m * 2^-9
  constexpr uint16_t kBias = 120 << 7;  // 127 of bf16 less 7 of FP8
  Vec in_place, sign, index;
  if constexpr (kTop) {
    in_place = W::template right<4>(words);
    sign = words;
    index = W::template right<8>(words);
  } else {
    in_place = W::template left<4>(words);
    sign = W::template left<8>(words);
    index = words;  // its low five bits are the mantissa where the exponent is 0
  }
  const Vec magnitude = W::mask(in_place, 0x07f0);
  const Vec normal = W::add(magnitude, kBias);
  return W::with_sign(W::table_where_clear(magnitude, 0x0780, index, kDenormals, normal), sign);
}
