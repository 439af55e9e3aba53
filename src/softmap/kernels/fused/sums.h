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

 public:
  explicit KeyCells(const Job& job) {
    if (!job.cell_sum) return;
    int64_t cell = 0;
    for (int64_t key = 0; key < job.keys; key += TILE) {
      while (job.key_edges[cell + 1] <= key) cell++;
      first_.push_back(int32_t(cell));
      whole_.push_back(job.key_edges[cell + 1] >= std::min(job.keys, key + TILE));
    }
  }
  int32_t first(int64_t tile) const { return first_[tile]; }  // the cell of its first key
  bool whole(int64_t tile) const { return whole_[tile]; }     // whether all its keys are in that cell
};

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
