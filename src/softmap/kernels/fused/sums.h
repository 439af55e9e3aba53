// What each key receives, and the cells: sums down the columns, which many strips add to.
//
// A chunk of strips adds into sums of its own, and the chunks are added up in their order: so the result does not
// depend on which thread took which chunk, and no float is added to more often than there are rows in a chunk.
#pragma once
#include <algorithm>
#include <vector>

#include "memory.h"
#include "products.h"
#include "sweep.h"

// Which cell the keys of a tile lie in.
class KeyCells {
  std::vector<int32_t> first_;
  std::vector<bool> whole_;
  int width_ = 0;

  // The width of all cells (the last may be narrower) where a tile is made of whole ones: a power of two; else 0.
  static int width_of(const Job& job) {
    const int64_t width = job.key_edges[1];
    if (width >= TILE || (width & (width - 1))) return 0;
    for (int64_t cell = 0; cell < job.cell_keys; cell++)
      if (job.key_edges[cell] != cell * width) return 0;
    return job.keys <= job.cell_keys * width ? int(width) : 0;
  }

 public:
  explicit KeyCells(const Job& job) {
    if (!job.cell_sum) return;
    width_ = width_of(job);
    int64_t cell = 0;
    for (int64_t key = 0; key < job.keys; key += TILE) {
      while (job.key_edges[cell + 1] <= key) cell++;
      first_.push_back(int32_t(cell));
      whole_.push_back(job.key_edges[cell + 1] >= std::min(job.keys, key + TILE));
    }
  }
  int32_t first(int64_t tile) const { return first_[tile]; }  // the cell of its first key
  bool whole(int64_t tile) const { return whole_[tile]; }     // whether all its keys are in that cell
  int width() const { return width_; }                        // of each cell, where they divide a tile; else 0
};

// Neighbours as one, `width` of them: sums and maxima of a tile's keys become those of its cells.
SOFTMAP_INLINE void fold(float* __restrict column, float* __restrict largest, int width) {
  alignas(64) float sum[TILE / 2], max[TILE / 2];
  const auto halve = [&](auto half) __attribute__((always_inline)) {
    constexpr int count = decltype(half)::value;
    for (int i = 0; i < count; i++) {
      sum[i] = column[2 * i] + column[2 * i + 1];
      max[i] = largest[2 * i] > largest[2 * i + 1] ? largest[2 * i] : largest[2 * i + 1];
    }
    std::memcpy(column, sum, count * sizeof(float)), std::memcpy(largest, max, count * sizeof(float));
  };
  if (width > 1) halve(std::integral_constant<int, TILE / 2>());
  if (width > 2) halve(std::integral_constant<int, TILE / 4>());
  if (width > 4) halve(std::integral_constant<int, TILE / 8>());
  if (width > 8) halve(std::integral_constant<int, TILE / 16>());
  if (width > 16) halve(std::integral_constant<int, TILE / 32>());
}

SOFTMAP_INLINE float sum_between(const float* x, int from, int to) {
  Vec sum{};
  for (; from + LANES <= to; from += LANES) sum += load(x + from);
  float rest = 0;
  for (; from < to; from++) rest += x[from];
  return sum_of(sum) + rest;
}

// The row of cells that a query lies in.
inline int64_t cell_row_of(const Job& job, int64_t query) {
  return std::upper_bound(job.row_edges, job.row_edges + job.cell_rows + 1, query) - job.row_edges - 1;
}

// One chunk's part of the sums of one head.
struct Sums {
  int64_t first_tile = 0, tiles = 0;  // the tiles its rows see
  Buffer<float> received;             // (tiles, TILE)
  int64_t first_cell_row = 0, cell_rows = 0, cell_keys = 0;
  std::vector<double> cell_sum;  // (cell_rows, cell_keys)
  std::vector<float> cell_max;

  void add(int64_t cell_row, int64_t cell_key, float sum, float max) {
    const size_t at = size_t((cell_row - first_cell_row) * cell_keys + cell_key);
    cell_sum[at] += double(sum);
    cell_max[at] = std::max(cell_max[at], max);
  }

  // The sums and maxima of a tile's keys, which the edges of cells cut: each cell takes its part.
  void add_cut(const Job& job, const KeyCells& cells, int64_t cell_row, int64_t tile, float* column, float* largest) {
    const int64_t key0 = tile * TILE;
    const int count = int(std::min<int64_t>(TILE, job.keys - key0));
    int64_t cell = cells.first(tile);
    if (const int width = cells.width()) {
      fold(column, largest, width);
      for (int i = 0; i * width < count; i++) add(cell_row, cell + i, column[i], largest[i]);
      return;
    }
    for (int from = 0; from < count; cell++) {
      const int to = int(std::min<int64_t>(count, job.key_edges[cell + 1] - key0));
      add(cell_row, cell, sum_between(column, from, to), *std::max_element(largest + from, largest + to));
      from = to;
    }
  }

  void start(const Job& job, int64_t row0, int64_t row1, int64_t tile0, int64_t tile1) {
    if (job.received) {
      first_tile = tile0, tiles = tile1 - tile0;
      received.resize(size_t(tiles) * TILE);
      std::fill(static_cast<float*>(received), received + received.size(), 0.f);
    }
    if (job.cell_sum) {
      first_cell_row = cell_row_of(job, row0);
      cell_rows = cell_row_of(job, row1 - 1) + 1 - first_cell_row;
      cell_keys = job.cell_keys;
      cell_sum.assign(size_t(cell_rows * cell_keys), 0.);
      cell_max.assign(size_t(cell_rows * cell_keys), 0.f);
    }
  }
};

// Adds up the chunks of one head, in their order.
static void add_up(const Job& job, int64_t head, const std::vector<Sums>& chunks) {
  if (job.received) {
    std::vector<double> total(size_t(job.keys), 0.);
    for (const Sums& chunk : chunks) {
      const int64_t key0 = chunk.first_tile * TILE, count = std::min(chunk.tiles * TILE, job.keys - key0);
      const float* part = chunk.received;
      for (int64_t j = 0; j < count; j++) total[size_t(key0 + j)] += part[j];
    }
    std::copy(total.begin(), total.end(), job.received + head * job.keys);
  }
  if (job.cell_sum) {
    const int64_t size = job.cell_rows * job.cell_keys;
    std::vector<double> total(size_t(size), 0.);
    float* max = job.cell_max + head * size;
    std::fill(max, max + size, 0.f);
    for (const Sums& chunk : chunks) {
      const int64_t at = chunk.first_cell_row * job.cell_keys;
      for (size_t i = 0; i < chunk.cell_sum.size(); i++) {
        total[size_t(at) + i] += chunk.cell_sum[i];
        max[size_t(at) + i] = std::max(max[size_t(at) + i], chunk.cell_max[i]);
      }
    }
    std::copy(total.begin(), total.end(), job.cell_sum + head * size);
  }
}
