// What a sweep is given and gives back: plain numbers and pointers, nothing of Python or torch.
//
//     scaled  = softcap(q kT scale) + bias,  -inf where hidden      weights = softmax(scaled)      output = weights v
//
// All arrays are row-major; inputs may have strides between heads and rows (counted in elements), results are dense.
// q, k, v must be finite, and so small that no score overflows a float: the caller sees to it.
#pragma once
#include <cstdint>
#include <functional>

constexpr int TOP_LIMIT = 64;  // the largest weights of a row that a sweep gives at most

enum class Dtype { float32, float16, bfloat16 };

struct Input {  // (heads, rows, columns)
  const void* data = nullptr;
  Dtype dtype = Dtype::float32;
  int64_t head_stride = 0, row_stride = 0;
};

struct Job {
  int64_t heads = 0, kv_heads = 0, queries = 0, keys = 0;
  int depth = 0, width = 0;                         // d_k, d_v
  Input q, k, v;                                    // v.data null: no output
  double scale = 1, softcap = 0;                    // softcap 0: none
  const float* sinks = nullptr;                     // (heads), or null
  const int64_t *start = nullptr, *stop = nullptr;  // (queries): query i may see keys start[i] to stop[i] alone
  int64_t offset = 0;                               // the key at which query 0 stands: where distances are counted from
  const bool* seen = nullptr;                       // (keys): the keys that are not hidden from every query, or null

  // Each row's logsumexp where it is known, in two parts that are taken off one by one; else null. Then the matrix may
  // be a part of a larger one, weights are exp(scaled - high - low), and cells are all that is given.
  const double *known_high = nullptr, *known_low = nullptr;  // (heads, queries), nats

  // Where a mask is more than start and stop, or there is a bias: writes what is to be added to the scaled scores of
  // these rows and keys (-inf: hidden) to out, `stride` numbers from row to row. Called from all threads.
  std::function<void(int64_t head, int64_t row0, int64_t row1, int64_t key0, int64_t key1, float* out, int64_t stride)>
      added;

  // Results; null where not wanted.
  double* logsumexp = nullptr;                               // (heads, queries), nats; to take off large scores
  float* output = nullptr;                                   // (heads, queries, width)
  float* entropy = nullptr;                                  // (heads, queries), nats
  float *signed_distance = nullptr, *distance = nullptr;     // (heads, queries), both or neither
  int top = 0;                                               // at most TOP_LIMIT
  float* top_weights = nullptr;                              // (heads, queries, top)
  int64_t* top_keys = nullptr;                               // (heads, queries, top)
  float* received = nullptr;                                 // (heads, keys)
  int64_t cell_rows = 0, cell_keys = 0;                      // cells in each direction
  const int64_t *row_edges = nullptr, *key_edges = nullptr;  // (cell_rows + 1), (cell_keys + 1)
  float *cell_sum = nullptr, *cell_max = nullptr;            // (heads, cell_rows, cell_keys), both or neither

  int threads = 1;
  std::function<void()> check_interrupt;  // called now and then from the calling thread; throws to stop the sweep
};

// Throws what `added` or `check_interrupt` threw, and std::bad_alloc; results are then undefined. The results do not
// depend on the number of threads.
void sweep(const Job& job);
