// The sweep as a Python function over arrays. What fits together is checked in Python; here only that every pointer has
// the dtype, rank and size that the sweep will read or write.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <limits>
#include <optional>

#include "sweep.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class T, int N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <class T, int N>
using Maybe = std::optional<Array<T, N>>;
typedef nb::ndarray<nb::ro, nb::ndim<3>, nb::device::cpu> AnyFloats;

[[noreturn]] void refuse(const char* name, const char* what) {
  throw nb::value_error((std::string(name) + ": " + what).c_str());
}

Input input_of(const char* name, const AnyFloats& array) {
  Input input;
  const nb::dlpack::dtype dtype = array.dtype();
  if (dtype == nb::dtype<float>()) input.dtype = Dtype::float32;
  else if (dtype.code == uint8_t(nb::dlpack::dtype_code::Float) && dtype.bits == 16) input.dtype = Dtype::float16;
  else if (dtype.code == uint8_t(nb::dlpack::dtype_code::Bfloat) && dtype.bits == 16) input.dtype = Dtype::bfloat16;
  else refuse(name, "float32, float16 or bfloat16");
  if (array.shape(2) > 1 && array.stride(2) != 1) refuse(name, "a last axis without gaps");
  if (array.shape(2) > size_t(std::numeric_limits<int>::max())) refuse(name, "too wide");
  input.data = array.data();
  input.head_stride = array.stride(0), input.row_stride = array.stride(1);
  return input;
}

// The pointer of an array of just these sizes; null for None.
template <class A, class... Sizes>
typename A::Scalar* data_of(const char* name, const std::optional<A>& array, Sizes... sizes) {
  if (!array) return nullptr;
  size_t axis = 0;
  if (array->ndim() != sizeof...(sizes) || (... || (int64_t(array->shape(axis++)) != int64_t(sizes))))
    refuse(name, "another shape was expected");
  return array->data();
}

// Copies what the Python function gives for these rows and keys.
void add_from(const nb::callable& added, int64_t head, int64_t row0, int64_t row1, int64_t key0, int64_t key1,
              float* out, int64_t stride) {
  const nb::gil_scoped_acquire lock;
  const auto strip = nb::cast<Array<const float, 2>>(added(head, row0, row1, key0, key1));
  if (int64_t(strip.shape(0)) != row1 - row0 || int64_t(strip.shape(1)) != key1 - key0)
    refuse("added", "gave another shape than asked for");
  for (int64_t r = 0; r < row1 - row0; r++, out += stride) {
    std::memcpy(out, strip.data() + r * (key1 - key0), size_t(key1 - key0) * sizeof(float));
    std::memset(out + (key1 - key0), 0, size_t(stride - (key1 - key0)) * sizeof(float));
  }
}

void sweep_arrays(const AnyFloats& q, const AnyFloats& k, const std::optional<AnyFloats>& v, double scale,
                  double softcap, const Maybe<const float, 1>& sinks, const Array<const int64_t, 1>& start,
                  const Array<const int64_t, 1>& stop, int64_t offset, const Maybe<const bool, 1>& seen,
                  const std::optional<nb::callable>& added, const Maybe<const double, 2>& known_high,
                  const Maybe<const double, 2>& known_low, const Maybe<double, 2>& logsumexp,
                  const Maybe<float, 3>& output, const Maybe<float, 2>& entropy, const Maybe<float, 2>& signed_distance,
                  const Maybe<float, 2>& distance, const Maybe<float, 3>& top_weights,
                  const Maybe<int64_t, 3>& top_keys, const Maybe<float, 2>& received,
                  const Maybe<const int64_t, 1>& row_edges, const Maybe<const int64_t, 1>& key_edges,
                  const Maybe<float, 3>& cell_sum, const Maybe<float, 3>& cell_max, int threads, bool interruptible) {
  Job job;
  job.heads = q.shape(0), job.queries = q.shape(1), job.depth = int(q.shape(2));
  job.kv_heads = k.shape(0), job.keys = k.shape(1);
  job.q = input_of("q", q), job.k = input_of("k", k);
  if (!job.heads || !job.queries || !job.keys || !job.kv_heads || !job.depth || job.heads % job.kv_heads ||
      k.shape(2) != q.shape(2))
    refuse("q and k", "their shapes do not fit");
  if (v) {
    job.v = input_of("v", *v);
    job.width = int(v->shape(2));
    if (int64_t(v->shape(0)) != job.kv_heads || int64_t(v->shape(1)) != job.keys) refuse("v", "its shape does not fit");
  }
  job.scale = scale, job.softcap = softcap, job.offset = offset;
  job.sinks = data_of("sinks", sinks, job.heads);
  if (int64_t(start.shape(0)) != job.queries || int64_t(stop.shape(0)) != job.queries)
    refuse("start and stop", "one number for each query");
  job.start = start.data(), job.stop = stop.data();
  for (int64_t i = 0; i < job.queries; i++)
    if (job.start[i] < 0 || job.stop[i] > job.keys) refuse("start and stop", "within the keys");
  job.seen = data_of("seen", seen, job.keys);
  job.known_high = data_of("known_high", known_high, job.heads, job.queries);
  job.known_low = data_of("known_low", known_low, job.heads, job.queries);
  if (!job.known_high != !job.known_low) refuse("known", "both parts or neither");
  if (job.known_high && (!cell_sum || logsumexp || output || entropy || distance || top_weights || received))
    refuse("known", "gives cells alone");
  if (added)
    job.added = [&added](int64_t head, int64_t row0, int64_t row1, int64_t key0, int64_t key1, float* out,
                         int64_t stride) { add_from(*added, head, row0, row1, key0, key1, out, stride); };

  job.logsumexp = data_of("logsumexp", logsumexp, job.heads, job.queries);
  job.output = data_of("output", output, job.heads, job.queries, job.width);
  if (job.output && !v) refuse("output", "needs v");
  job.entropy = data_of("entropy", entropy, job.heads, job.queries);
  job.signed_distance = data_of("signed_distance", signed_distance, job.heads, job.queries);
  job.distance = data_of("distance", distance, job.heads, job.queries);
  if (!job.signed_distance != !job.distance) refuse("distance", "both or neither");
  job.top = top_weights ? int(top_weights->shape(2)) : 0;
  job.top_weights = data_of("top_weights", top_weights, job.heads, job.queries, job.top);
  job.top_keys = data_of("top_keys", top_keys, job.heads, job.queries, job.top);
  if (job.top > TOP_LIMIT || !job.top_weights != !job.top_keys) refuse("top", "at most 64, weights and keys");
  job.received = data_of("received", received, job.heads, job.keys);
  if (!cell_sum != !cell_max || !cell_sum != !row_edges || !cell_sum != !key_edges)
    refuse("cells", "sum and maximum, with both edges");
  if (cell_sum) {
    job.cell_rows = int64_t(row_edges->shape(0)) - 1, job.cell_keys = int64_t(key_edges->shape(0)) - 1;
    job.row_edges = row_edges->data(), job.key_edges = key_edges->data();
    const auto rising = [](const int64_t* edges, int64_t cells, int64_t last) {
      if (cells < 1 || edges[0] != 0 || edges[cells] != last) return false;
      for (int64_t i = 0; i < cells; i++)
        if (edges[i] >= edges[i + 1]) return false;
      return true;
    };
    if (!rising(job.row_edges, job.cell_rows, job.queries) || !rising(job.key_edges, job.cell_keys, job.keys))
      refuse("edges", "rising from 0 to the end");
    job.cell_sum = data_of("cell_sum", cell_sum, job.heads, job.cell_rows, job.cell_keys);
    job.cell_max = data_of("cell_max", cell_max, job.heads, job.cell_rows, job.cell_keys);
  }

  job.threads = threads;
  if (interruptible)
    job.check_interrupt = [] {
      const nb::gil_scoped_acquire lock;
      if (PyErr_CheckSignals()) throw nb::python_error();
    };
  const nb::gil_scoped_release unlocked;
  sweep(job);
}

}  // namespace

NB_MODULE(SOFTMAP_MODULE, m) {
  // A result of another dtype or layout must be refused: nanobind would write to a converted copy of it.
  const auto result = [](const char* name) { return nb::arg(name).none().noconvert(); };
  m.def("sweep", &sweep_arrays, nb::kw_only(), "q"_a, "k"_a, "v"_a.none(), "scale"_a, "softcap"_a, "sinks"_a.none(),
        "start"_a, "stop"_a, "offset"_a, "seen"_a.none() = nb::none(), "added"_a.none(),
        "known_high"_a.none() = nb::none(), "known_low"_a.none() = nb::none(), result("logsumexp"), result("output"),
        result("entropy"), result("signed_distance"), result("distance"), result("top_weights"), result("top_keys"),
        result("received"), "row_edges"_a.none(), "key_edges"_a.none(), result("cell_sum"), result("cell_max"),
        "threads"_a, "interruptible"_a);
  // Which of the modules this processor can run. Asked of the baseline module, which every processor can.
  m.def("runs_avx2", [] {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
  });
  m.def("runs_avx512", [] {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
    return false;
#endif
  });
}
