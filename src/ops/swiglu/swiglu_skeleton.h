// SwiGLU of one row, for a vector type V; included by swiglu_<isa>.cc into its unnamed namespace.

// exp(x), to 2 units in the last place: 2^n * p(r), n = round(x / ln 2), |r| <= ln(2) / 2, with a Taylor
// polynomial whose next term is below 2^-27 there. Infinity above 88.72, about 1e-38 below -87.3; NaN stays
// NaN.
template <class V>
typename V::Vec exp_of(typename V::Vec x) {
  const auto bounded = V::max(V::set(-87.3F), V::min(V::set(88.72F), x));
  const auto n = V::round(V::multiply(bounded, V::set(1.44269504F)));
  // ln 2 in two parts, the first with few enough bits that n times it is exact.
  auto r = V::multiply_add(n, V::set(-0.693359375F), bounded);
  r = V::multiply_add(n, V::set(2.12194440e-4F), r);
  auto p = V::set(1.0F / 5040.0F);
  p = V::multiply_add(p, r, V::set(1.0F / 720.0F));
  p = V::multiply_add(p, r, V::set(1.0F / 120.0F));
  p = V::multiply_add(p, r, V::set(1.0F / 24.0F));
  p = V::multiply_add(p, r, V::set(1.0F / 6.0F));
  p = V::multiply_add(p, r, V::set(0.5F));
  p = V::multiply_add(p, r, V::set(1.0F));
  p = V::multiply_add(p, r, V::set(1.0F));
  return V::infinity_above(x, 88.72F, V::times_power_of_two(p, n));
}

template <class V>
typename V::Vec swiglu_of(typename V::Vec gate, typename V::Vec up) {
  const auto e = exp_of<V>(V::multiply(gate, V::set(-1.0F)));
  return V::multiply(V::divide(gate, V::add(V::set(1.0F), e)), up);
}

template <class V>
void swiglu_row(const float* gate, const float* up, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) {
    V::store(y + i, swiglu_of<V>(V::load(gate + i), V::load(up + i)));
  }
  if (i == n) return;
  float g[V::kLanes] = {};
  float u[V::kLanes] = {};
  for (int64_t j = i; j < n; ++j) {
    g[j - i] = gate[j];
    u[j - i] = up[j];
  }
  V::store(g, swiglu_of<V>(V::load(g), V::load(u)));
  for (int64_t j = i; j < n; ++j) y[j] = g[j - i];
}
