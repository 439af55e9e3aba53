// 2^x and tanh(x), lane by lane, to about one unit in the last place of a float.
#pragma once
#include "simd.h"

// 2^x for x <= 0; exactly 0 below -126.5 (and for -inf), exactly 1 at 0. x is clamped to -127 in place, so that
// e * x is 0, not NaN, for a hidden key.
//
// x is split into a whole number n and a rest r in [-0.5, 0.5] by adding a number so large that only whole steps
// remain. Its low bits then hold n + 127, the exponent of 2^n as a float stores it. 2^r is a polynomial of degree 5
// with 2^0 = 1 exact (minimax over [-0.5, 0.5], largest relative error 1.1e-7).
SOFTMAP_INLINE Vec exp2_of(Vec& x) {
  x = larger(x, splat(-127.f));
  const Vec shift = splat(12582912.f + 127.f);  // 1.5 * 2^23 + 127
  const Vec shifted = x + shift;
  const Vec r = x - (shifted - shift);
  Vec p = r * 0x1.5bba14p-10f + 0x1.3cea88p-7f;
  p = p * r + 0x1.c6b752p-5f;
  p = p * r + 0x1.ebf9bcp-3f;
  p = p * r + 0x1.62e42ap-1f;
  p = p * r + 1.f;
  return p * (Vec)((IntVec)shifted << 23);
}

// Two forms, since each loses digits where the other is good: x times a polynomial in x^2 for |x| < 0.625 (Cephes,
// tanhf), 1 - 2 / (e^2|x| + 1) with x's sign beyond.
SOFTMAP_INLINE Vec tanh_of(Vec x) {
  const IntVec sign_bit = IntVec{} + INT32_MIN;
  const IntVec sign = (IntVec)x & sign_bit;
  const Vec size = (Vec)((IntVec)x & ~sign_bit);
  const Vec z = x * x;
  Vec p = z * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const Vec near = p * z * x + x;
  Vec power = size * -2.885390082f;  // -2 |x| log2(e)
  const Vec e = exp2_of(power);
  const Vec far = (Vec)((IntVec)((1.f - e) / (1.f + e)) | sign);
  return size < splat(0.625f) ? near : far;
}
