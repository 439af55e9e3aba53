// Inputs of any dtype and stride as floats, laid out as the products read them.
#pragma once
#include <algorithm>

#include "products.h"
#include "sweep.h"

SOFTMAP_INLINE float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
SOFTMAP_INLINE float from_bfloat16(uint16_t half) { return from_bits(uint32_t(half) << 16); }
// A half's exponent and fraction moved into place are a float 2^112 too small. Its denormals are counted in steps of
// 2^-24: as floats they would be denormals too, which are 0 in a FloatScope.
SOFTMAP_INLINE float from_float16(uint16_t half) {
  const uint32_t bits = uint32_t(half & 0x7fff) << 13;
  const float size = bits < 1u << 23 ? float(int(bits >> 13)) * 0x1p-24f : from_bits(bits + (112u << 23));
  return half & 0x8000 ? -size : size;
}

// to[columns] = row `row` of `head`
static void read_row(const Input& input, int64_t head, int64_t row, int columns, float* __restrict to) {
  const int64_t at = head * input.head_stride + row * input.row_stride;
  if (input.dtype == Dtype::float32) {
    const float* from = static_cast<const float*>(input.data) + at;
    std::copy(from, from + columns, to);
  } else if (input.dtype == Dtype::bfloat16) {
    const uint16_t* from = static_cast<const uint16_t*>(input.data) + at;
    for (int i = 0; i < columns; i++) to[i] = from_bfloat16(from[i]);
  } else {
    const uint16_t* from = static_cast<const uint16_t*>(input.data) + at;
    for (int i = 0; i < columns; i++) to[i] = from_float16(from[i]);
  }
}

typedef float Four __attribute__((vector_size(16)));

// to[4][to_stride] = from[4][from_stride], turned
SOFTMAP_INLINE void turn_four(const float* from, size_t from_stride, float* to, size_t to_stride) {
  Four a[4];
  SOFTMAP_UNROLL for (int i = 0; i < 4; i++) std::memcpy(&a[i], from + i * from_stride, sizeof(Four));
  const Four low = SOFTMAP_SHUFFLE(a[0], a[1], 0, 4, 1, 5), high = SOFTMAP_SHUFFLE(a[0], a[1], 2, 6, 3, 7);
  const Four low2 = SOFTMAP_SHUFFLE(a[2], a[3], 0, 4, 1, 5), high2 = SOFTMAP_SHUFFLE(a[2], a[3], 2, 6, 3, 7);
  const Four turned[4] = {SOFTMAP_SHUFFLE(low, low2, 0, 1, 4, 5), SOFTMAP_SHUFFLE(low, low2, 2, 3, 6, 7),
                          SOFTMAP_SHUFFLE(high, high2, 0, 1, 4, 5), SOFTMAP_SHUFFLE(high, high2, 2, 3, 6, 7)};
  SOFTMAP_UNROLL for (int i = 0; i < 4; i++) std::memcpy(to + i * to_stride, &turned[i], sizeof(Four));
}

// A tile of k, turned: to[depth][TILE]; keys beyond the last are 0.
static void pack_keys(const Input& k, int64_t head, int64_t key, int64_t keys, int depth, float* scratch, float* to) {
  const int count = int(std::min<int64_t>(TILE, keys - key));
  for (int j = 0; j < count; j++) read_row(k, head, key + j, depth, scratch + size_t(j) * depth);
  std::fill(scratch + size_t(count) * depth, scratch + size_t(TILE) * depth, 0.f);
  for (int j = 0; j < TILE; j += 4) {
    const float* rows = scratch + size_t(j) * depth;
    int d = 0;
    for (; d + 4 <= depth; d += 4) turn_four(rows + d, depth, to + size_t(d) * TILE + j, TILE);
    for (; d < depth; d++)
      for (int i = 0; i < 4; i++) to[size_t(d) * TILE + j + i] = rows[size_t(i) * depth + d];
  }
}

// A tile of v: to[TILE][width], width being d_v up to the next whole vector; the rest is 0.
static void pack_values(const Input& v, int64_t head, int64_t key, int64_t keys, int d_v, int width, float* to) {
  const int count = int(std::min<int64_t>(TILE, keys - key));
  for (int j = 0; j < TILE; j++, to += width) {
    if (j < count) read_row(v, head, key + j, d_v, to);
    std::fill(to + (j < count ? d_v : 0), to + width, 0.f);
  }
}
