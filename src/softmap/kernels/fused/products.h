// The two matrix products, q kT and weights v, in blocks of rows x vectors that stay in registers.
//
// Each step along the inner dimension loads V vectors and broadcasts one number for each of R rows, for R * V fused
// multiply-adds. AVX-512 has 32 registers: 4 x 4 or 8 x 2 accumulators keep both units busy at 8 to 10 loads for 16
// multiply-adds. AVX2 and SSE have 16: 6 x 2. A tile of k of depth 64 is half of a 32 KiB first-level cache; deeper
// ones are taken in two halves of 32 keys (8 x 2), so that they still fit beside the rows of q.
#pragma once
#include <type_traits>

#include "simd.h"

constexpr int TILE = 64;  // keys of a tile: 4 vectors of AVX-512, one row of scores = four cache lines
constexpr int ROWS = 64;  // queries of a strip: enough that a tile of k, once loaded, is used 64 times

#if defined(__AVX512F__)
struct Narrow {
  static constexpr int rows = 4, vectors = 4;
};
struct Wide {
  static constexpr int rows = 8, vectors = 2;
};
#elif defined(__aarch64__)
struct Narrow {
  static constexpr int rows = 8, vectors = 2;
};
typedef Narrow Wide;
#else
struct Narrow {
  static constexpr int rows = 6, vectors = 2;
};
typedef Narrow Wide;
#endif

// scores[R][V vectors] = q[R][depth] k[depth][V vectors], and for each row the maximum of its vectors, lane by lane.
template <int R, int V>
SOFTMAP_INLINE void score_block(const float* __restrict q, int depth, const float* __restrict k,
                                float* __restrict scores, float* __restrict peaks, size_t peak_stride, bool first) {
  Vec sum[R][V];
  SOFTMAP_UNROLL for (int r = 0; r < R; r++) SOFTMAP_UNROLL for (int c = 0; c < V; c++) sum[r][c] = Vec{};
  SOFTMAP_UNROLL_4
  for (int d = 0; d < depth; d++) {
    Vec key[V];
    SOFTMAP_UNROLL for (int c = 0; c < V; c++) key[c] = load(k + size_t(d) * TILE + c * LANES);
    SOFTMAP_UNROLL for (int r = 0; r < R; r++) {
      const Vec query = splat(q[size_t(r) * depth + d]);
      SOFTMAP_UNROLL for (int c = 0; c < V; c++) sum[r][c] += query * key[c];
    }
  }
  SOFTMAP_UNROLL for (int r = 0; r < R; r++) {
    Vec peak = sum[r][0];
    SOFTMAP_UNROLL for (int c = 0; c < V; c++) {
      store(scores + r * TILE + c * LANES, sum[r][c]);
      peak = larger(peak, sum[r][c]);
    }
    if (!first) peak = larger(peak, load(peaks + r * peak_stride));
    store(peaks + r * peak_stride, peak);
  }
}

// output[R][V vectors] += weights[R][TILE] v[TILE][V vectors]
template <int R, int V>
SOFTMAP_INLINE void output_block(const float* __restrict weights, const float* __restrict v, int width,
                                 float* __restrict output) {
  Vec sum[R][V];
  SOFTMAP_UNROLL for (int r = 0; r < R; r++) SOFTMAP_UNROLL for (int c = 0; c < V; c++) sum[r][c] =
      load(output + size_t(r) * width + c * LANES);
  SOFTMAP_UNROLL_4
  for (int j = 0; j < TILE; j++) {
    Vec value[V];
    SOFTMAP_UNROLL for (int c = 0; c < V; c++) value[c] = load(v + size_t(j) * width + c * LANES);
    SOFTMAP_UNROLL for (int r = 0; r < R; r++) {
      const Vec weight = splat(weights[r * TILE + j]);
      SOFTMAP_UNROLL for (int c = 0; c < V; c++) sum[r][c] += weight * value[c];
    }
  }
  SOFTMAP_UNROLL for (int r = 0; r < R; r++) SOFTMAP_UNROLL for (int c = 0; c < V; c++)
      store(output + size_t(r) * width + c * LANES, sum[r][c]);
}

// Calls f(R, row) for blocks of R rows, then of R / 2, ..., 1, so that every row count is served without padding.
template <int R, class F>
SOFTMAP_INLINE void in_row_blocks(int row, int rows, F&& f) {
  for (; row + R <= rows; row += R) f(std::integral_constant<int, R>{}, row);
  if constexpr (R > 1) {
    if (row < rows) in_row_blocks<R / 2>(row, rows, f);
  }
}

// The scores of all rows of a strip with one tile of k, and their peaks. Meanwhile `next`, the tile that comes after
// it, is fetched into the second-level cache, a few lines with each block.
template <class Shape>
static void score_tile(const float* q, int rows, int depth, const float* k, const float* next, float* scores,
                       float* peaks, size_t peak_stride) {
  constexpr int columns = Shape::vectors * LANES;
  const int lines = depth * TILE / 16, blocks = TILE / columns * ((rows + Shape::rows - 1) / Shape::rows);
  const int lines_a_block = (lines + blocks - 1) / blocks;
  for (int c = 0; c < TILE; c += columns)
    in_row_blocks<Shape::rows>(0, rows, [&](auto R, int row) __attribute__((always_inline)) {
      for (int i = 0; i < lines_a_block; i++, next += 16) prefetch(next);
      score_block<R, Shape::vectors>(q + size_t(row) * depth, depth, k + c, scores + row * TILE + c,
                                     peaks + row * peak_stride, peak_stride, c == 0);
    });
}

// output[rows][width] += weights[rows][TILE] v[TILE][width], for the columns of width from `column` on.
template <class Shape>
static void output_tile(const float* weights, int rows, const float* v, int width, int column, float* output) {
  constexpr int step = Shape::vectors * LANES;
  for (; column + step <= width; column += step)
    in_row_blocks<Shape::rows>(0, rows, [&](auto R, int row) __attribute__((always_inline)) {
      output_block<R, Shape::vectors>(weights + row * TILE, v + column, width, output + size_t(row) * width + column);
    });
  for (; column < width; column += LANES)
    in_row_blocks<Wide::rows>(0, rows, [&](auto R, int row) __attribute__((always_inline)) {
      output_block<R, 1>(weights + row * TILE, v + column, width, output + size_t(row) * width + column);
    });
}
