// Functions over the vector types of this folder. Templates over a type of internal linkage only.
#pragma once

namespace fathom::ops {

// 2^x for x <= 127; 0 below -126.5, NaN stays NaN, and 2^0 is exactly 1. x is split into a whole number and
// f in [-0.5, 0.5]; 2^f is a polynomial whose own error is below 2.0e-9 (minimax fit of degree 6 with the
// constant held at 1), so that the relative error, rounding of its evaluation included, stays below 1.5e-7
// (measured over every float of [-126, 0] in flash_kernel_test.cc's sample: 1.2e-7).
template <class V>
inline typename V::F exp2(typename V::F x) {
  x = V::max(V::set(-127.0F), x);
  const typename V::F whole = V::round(x);
  const typename V::F f = V::sub(x, whole);
  typename V::F y = V::fma(V::set(0.00015353362F), f, V::set(0.0013398875F));
  y = V::fma(y, f, V::set(0.00961843692F));
  y = V::fma(y, f, V::set(0.0555033237F));
  y = V::fma(y, f, V::set(0.240226477F));
  y = V::fma(y, f, V::set(0.693147182F));
  y = V::fma(y, f, V::set(1.0F));
  return V::mul(y, V::pow2(whole));
}

}  // namespace fathom::ops
