// A matrix made at random, what a sweep gives for it, and the same by plain loops in double.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "sweep.h"

constexpr double INF = std::numeric_limits<double>::infinity();

enum class See { all, causal, window, some_empty, none };
enum class Keys { normal, of_five_kinds, zero_but_the_last, rising };  // the second and third make scores that tie

struct Shape {
  int64_t heads = 1, kv_heads = 1, queries = 64, keys = 64;
  int depth = 8, width = 5;  // width -1: no values
  Dtype dtype = Dtype::float32;
  int64_t row_gap = 0, head_gap = 0;  // numbers between rows and heads that are not part of the input
  See see = See::all;
  Keys kind = Keys::normal;
  bool added = false;
  bool holes = false;  // keys that no query sees
  float size = 1;      // of q's numbers
  double scale = 0.5, softcap = 0;
  bool sinks = false;
  int top = 8;
  int64_t cell_rows = 2, cell_keys = 3;  // 0: no cells
  bool statistics = true;                // entropy, distance and received
  int64_t offset = 0;
  uint32_t seed = 0;
};

inline double widened(uint16_t half, Dtype dtype) {
  if (dtype == Dtype::bfloat16) {
    const uint32_t bits = uint32_t(half) << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  }
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const double size = exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
  return half & 0x8000 ? -size : size;
}

// An input's memory, with gaps, of exactly the size it needs: one number read too far is one that a sanitizer sees.
class Array {
  std::vector<float> floats_;
  std::vector<uint16_t> halves_;
  Input input_;

 public:
  template <class Make>
  Array(const Shape& s, int64_t heads, int64_t rows, int columns, const Make& make) {
    input_.dtype = s.dtype;
    input_.row_stride = columns + s.row_gap, input_.head_stride = rows * input_.row_stride + s.head_gap;
    const size_t size = size_t((heads - 1) * input_.head_stride + (rows - 1) * input_.row_stride + columns);
    if (s.dtype == Dtype::float32) floats_.assign(size, NAN), input_.data = floats_.data();
    else halves_.assign(size, 0x7fff), input_.data = halves_.data();
    for (int64_t h = 0; h < heads; h++)
      for (int64_t i = 0; i < rows; i++)
        for (int d = 0; d < columns; d++)
          put(size_t(h * input_.head_stride + i * input_.row_stride + d), make(h, i, d));
  }
  Array(const Array&) = delete;

  const Input& input() const { return input_; }
  double at(int64_t head, int64_t row, int column) const {
    const size_t at = size_t(head * input_.head_stride + row * input_.row_stride + column);
    return floats_.empty() ? widened(halves_[at], input_.dtype) : floats_[at];
  }

 private:
  void put(size_t at, float x) {
    if (!floats_.empty()) {
      floats_[at] = x;
      return;
    }
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (input_.dtype == Dtype::bfloat16) {
      halves_[at] = uint16_t(bits >> 16);
      return;
    }
    const float size = std::min(std::fabs(x), 65504.f);  // cut to 11 bits; below 2^-14 to steps of 2^-24
    const int exponent = std::max(-14, size > 0 ? std::ilogb(size) : -14);
    const int fraction = int(std::ldexp(size, 10 - exponent));
    halves_[at] = uint16_t((bits >> 16 & 0x8000) | (fraction < 1024 ? fraction : (exponent + 14) * 1024 + fraction));
  }
};

// What a sweep gives.
struct Results {
  std::vector<double> logsumexp;
  std::vector<float> output, entropy, signed_distance, distance, top_weights, received, cell_sum, cell_max;
  std::vector<int64_t> top_keys;

  bool operator==(const Results& other) const {  // to the last bit, but for the sign of 0
    return logsumexp == other.logsumexp && output == other.output && entropy == other.entropy &&
           signed_distance == other.signed_distance && distance == other.distance && top_weights == other.top_weights &&
           received == other.received && cell_sum == other.cell_sum && cell_max == other.cell_max &&
           top_keys == other.top_keys;
  }
};

// A matrix of that shape, ready to be swept.
class Problem {
  std::mt19937 random;

  Array make(int64_t heads, int64_t rows, int columns, Keys kind, float size = 1) {
    std::normal_distribution<float> normal;
    std::vector<float> kinds(5 * size_t(columns));
    for (float& x : kinds) x = normal(random);
    return Array(s, heads, rows, columns, [&](int64_t, int64_t i, int d) {
      if (kind == Keys::rising) return d == 0 ? float(i) / 256 : 0.f;
      if (kind == Keys::of_five_kinds) return kinds[size_t(i * 7 % 11 % 5) * size_t(columns) + size_t(d)];
      if (kind == Keys::zero_but_the_last) return i < rows - 5 ? 0.f : 0.1f * normal(random);
      return normal(random) * size;
    });
  }
  std::vector<int64_t> edges(int64_t tokens, int64_t cells) {
    std::vector<int64_t> found;
    cells = std::min(cells, tokens);
    for (int64_t c = 0; cells && c <= cells; c++) found.push_back(c * tokens / cells);
    return found;
  }

 public:
  const Shape s;
  Array q, k, v;
  std::vector<int64_t> start, stop, row_edges, key_edges;
  std::vector<float> sinks;
  std::unique_ptr<bool[]> seen;  // of each key; null without holes

  explicit Problem(const Shape& s)
      : random(s.seed),
        s(s),
        q(make(s.heads, s.queries, s.depth, Keys::normal, s.size)),
        k(make(s.kv_heads, s.keys, s.depth, s.kind)),
        v(make(s.kv_heads, s.keys, std::max(s.width, 1), Keys::normal)),
        row_edges(edges(s.queries, s.cell_rows)),
        key_edges(edges(s.keys, s.cell_keys)) {
    for (int64_t i = 0; i < s.queries; i++) {
      const int64_t place = i + s.offset, end = std::min(s.keys, std::max<int64_t>(0, place + 1));
      const bool none = s.see == See::none || (s.see == See::some_empty && i % 3 != 1);
      start.push_back(s.see == See::window ? std::min(end, std::max<int64_t>(0, place - 20)) : none ? s.keys : 0);
      stop.push_back(none ? 0 : s.see == See::causal || s.see == See::window ? end : s.keys);
    }
    if (s.holes) seen.reset(new bool[size_t(s.keys)]);
    for (int64_t j = 0; j < s.keys && s.holes; j++) seen[size_t(j)] = j % 7 != 3 && j / 64 != 1;
    std::normal_distribution<float> normal;
    for (int64_t h = 0; h < s.heads && s.sinks; h++) sinks.push_back(3 * normal(random));
  }

  // What is added at one place: a bias, and -inf where a mask that is no range hides a key.
  float added(int64_t head, int64_t i, int64_t j) const {
    return (i + 2 * j) % 5 == 0 ? -INFINITY : -0.01f * float(head + 1) * float(std::abs(i + s.offset - j) % 100);
  }

  Job job(Results& to, int threads) const {
    Job job;
    job.heads = s.heads, job.kv_heads = s.kv_heads, job.queries = s.queries, job.keys = s.keys;
    job.depth = s.depth, job.q = q.input(), job.k = k.input();
    job.scale = s.scale, job.softcap = s.softcap, job.offset = s.offset, job.threads = threads;
    job.start = start.data(), job.stop = stop.data();
    if (s.sinks) job.sinks = sinks.data();
    job.seen = seen.get();
    if (s.added)
      job.added = [this](int64_t head, int64_t row0, int64_t row1, int64_t key0, int64_t key1, float* out,
                         int64_t stride) {
        for (int64_t i = row0; i < row1; i++)
          for (int64_t j = key0; j < key0 + stride; j++)
            out[(i - row0) * stride + j - key0] = j < key1 ? added(head, i, j) : 0.f;
      };
    const int64_t rows = s.heads * s.queries;
    const auto room = [](auto& values, int64_t size) {
      values.assign(size_t(size), -7);
      return values.data();
    };
    job.logsumexp = room(to.logsumexp, rows);
    if (s.width >= 0) job.width = s.width, job.v = v.input(), job.output = room(to.output, rows * s.width);
    if (s.statistics) {
      job.entropy = room(to.entropy, rows), job.received = room(to.received, s.heads * s.keys);
      job.signed_distance = room(to.signed_distance, rows), job.distance = room(to.distance, rows);
    }
    job.top = s.top;
    if (s.top) job.top_weights = room(to.top_weights, rows * s.top), job.top_keys = room(to.top_keys, rows * s.top);
    if (!row_edges.empty()) {
      job.cell_rows = int64_t(row_edges.size()) - 1, job.cell_keys = int64_t(key_edges.size()) - 1;
      job.row_edges = row_edges.data(), job.key_edges = key_edges.data();
      job.cell_sum = room(to.cell_sum, s.heads * job.cell_rows * job.cell_keys);
      job.cell_max = room(to.cell_max, s.heads * job.cell_rows * job.cell_keys);
    }
    return job;
  }

  Results sweep(int threads = 1) const {
    Results results;
    ::sweep(job(results, threads));
    return results;
  }

  // The same results, but with the cells of a second look, now that the rows' logsumexp is known.
  Results with_known_cells(Results results, int threads = 1) const {
    std::vector<double> high, low;
    for (const double x : results.logsumexp)
      high.push_back(double(float(x))), low.push_back(x > -INF ? x - double(float(x)) : 0);
    Results again;
    Job known = job(again, threads);
    known.known_high = high.data(), known.known_low = low.data();
    known.logsumexp = nullptr, known.top = 0, known.top_keys = nullptr;
    known.output = known.entropy = known.signed_distance = known.distance = known.top_weights = known.received =
        nullptr;
    ::sweep(known);
    results.cell_sum = again.cell_sum, results.cell_max = again.cell_max;
    return results;
  }
};

// Compares with plain loops. What is allowed: a dot product of d floats is off by about sqrt(d) units of the last place
// of sum |q||k|, what is done to it by a few units of its size; a weight by a factor e^(2 * that) and a little
// rounding.
class Naive {
  static constexpr double UNIT = 0x1p-24, TINY = 1e-30;
  const Problem& p;
  const Shape& s;
  const Results& got;
  double score_error = 0, relative = 0;

  void close(const char* name, double have, double want, double allowed) const {
    if (have == want || std::fabs(have - want) <= allowed) return;
    throw std::runtime_error(std::string(name) + ": " + std::to_string(have) + ", expected " + std::to_string(want) +
                             " to " + std::to_string(allowed));
  }

  std::vector<double> scaled_row(int64_t head, int64_t i) {
    const int64_t kv = head * s.kv_heads / s.heads;
    std::vector<double> row(size_t(s.keys), -INF);
    for (int64_t j = p.start[size_t(i)]; j < p.stop[size_t(i)]; j++) {
      double score = 0, size = 0;
      for (int d = 0; d < s.depth; d++) {
        const double product = p.q.at(head, i, d) * p.k.at(kv, j, d) * s.scale;
        score += product, size += std::fabs(product);
      }
      if (s.softcap) score = s.softcap * std::tanh(score / s.softcap);
      const float more = p.seen && !p.seen[size_t(j)] ? -INFINITY : s.added ? p.added(head, i, j) : 0.f;
      row[size_t(j)] = score + double(more);
      if (more > -INFINITY)
        score_error =
            std::max(score_error, UNIT * ((std::sqrt(s.depth) + 8) * size + 8 * (std::fabs(more) + s.softcap)));
    }
    return row;
  }

  void check_top(const std::vector<double>& row, double logsumexp, size_t at) const {
    std::vector<int64_t> order;
    for (int64_t j = 0; j < s.keys; j++)
      if (row[size_t(j)] > -INF) order.push_back(j);
    const bool tie = s.kind == Keys::of_five_kinds || s.kind == Keys::zero_but_the_last;
    const size_t seen = std::min(order.size(), size_t(s.top));
    std::partial_sort(order.begin(), order.begin() + int64_t(seen), order.end(), [&](int64_t a, int64_t b) {
      return row[size_t(a)] > row[size_t(b)] || (row[size_t(a)] == row[size_t(b)] && a < b);
    });
    for (size_t i = 0; i < size_t(s.top); i++) {
      const int64_t key = got.top_keys[at + i];
      const float weight = got.top_weights[at + i];
      if (i >= seen) {
        close("key of a place that stays empty", double(key), -1, 0), close("its weight", weight, 0, 0);
        continue;
      }
      if (key < 0 || key >= s.keys) throw std::runtime_error("top: no such key");
      if (tie) close("key among ties", double(key), double(order[i]), 0);
      close("scaled score of top", row[size_t(key)], row[size_t(order[i])], 2 * score_error);
      const double want = std::exp(row[size_t(key)] - logsumexp);
      close("weight of top", weight, want, relative * want + TINY);
      if (i && weight > got.top_weights[at + i - 1]) throw std::runtime_error("top: weights rise");
    }
  }

 public:
  Naive(const Problem& p, const Results& got) : p(p), s(p.s), got(got) {}

  void check() {
    for (int64_t h = 0; h < s.heads; h++) check_head(h);
  }

 private:
  void check_head(int64_t h) {
    const int64_t kv = h * s.kv_heads / s.heads, cell_rows = int64_t(p.row_edges.size()) - 1;
    const int64_t cell_keys = int64_t(p.key_edges.size()) - 1;
    std::vector<double> received(size_t(s.keys), 0.), sums(p.row_edges.size() * p.key_edges.size(), 0.), maxima = sums;
    int64_t cell_row = 0;
    for (int64_t i = 0; i < s.queries; i++) {
      const size_t at = size_t(h * s.queries + i);
      score_error = s.sinks ? UNIT * 8 * std::fabs(p.sinks[size_t(h)]) : 0;
      const std::vector<double> row = scaled_row(h, i);
      relative = std::expm1(2 * score_error) + 40 * UNIT;
      double peak = s.sinks ? double(p.sinks[size_t(h)]) : -INF, total = 0;
      for (double x : row) peak = std::max(peak, x);
      for (double x : row) total += x > -INF ? std::exp(x - peak) : 0;
      if (s.sinks) total += std::exp(double(p.sinks[size_t(h)]) - peak);
      const double logsumexp = peak > -INF ? peak + std::log(total) : -INF;
      double size = 0;
      for (double x : row) size = std::max(size, x > -INF ? std::fabs(x) : 0);
      close("logsumexp", got.logsumexp[at], logsumexp, score_error + UNIT * (40 + 2 * size));

      double entropy = 0, ahead = 0, behind = 0;
      std::vector<double> output(size_t(std::max(s.width, 0)), 0.), sizes = output;
      while (cell_rows > 0 && p.row_edges[size_t(cell_row) + 1] <= i) cell_row++;
      for (int64_t j = 0, cell = 0; j < s.keys; j++) {
        while (cell_keys > 0 && p.key_edges[size_t(cell) + 1] <= j) cell++;
        if (row[size_t(j)] == -INF) continue;
        const double w = std::exp(row[size_t(j)] - logsumexp), far = double(i + s.offset - j);
        received[size_t(j)] += w;
        if (w > 0) entropy -= w * (row[size_t(j)] - logsumexp);
        (far > 0 ? behind : ahead) += w * std::fabs(far);
        for (int d = 0; d < s.width; d++) {
          const double part = w * p.v.at(kv, j, d);
          output[size_t(d)] += part, sizes[size_t(d)] += std::fabs(part);
        }
        if (cell_keys > 0) {
          const size_t in = size_t(cell_row * cell_keys + cell);
          sums[in] += w, maxima[in] = std::max(maxima[in], w);
        }
      }
      for (int d = 0; d < s.width; d++)
        close("output", got.output[at * size_t(s.width) + size_t(d)], output[size_t(d)],
              relative * sizes[size_t(d)] + TINY);
      if (s.statistics) {
        close("entropy", got.entropy[at], entropy, 2 * score_error + relative * (entropy + 1 + size));
        const double place = relative * (behind + ahead) + 512 * UNIT;
        close("signed distance", got.signed_distance[at], behind - ahead, place);
        close("distance", got.distance[at], behind + ahead, place);
      }
      if (s.top) check_top(row, logsumexp, at * size_t(s.top));
    }
    const double tiny = TINY * double(s.queries);
    const double rounding = 2 * relative;  // the rows' own errors differ
    for (int64_t j = 0; j < s.keys && s.statistics; j++)
      close("received", got.received[size_t(h * s.keys + j)], received[size_t(j)],
            rounding * received[size_t(j)] + tiny);
    for (int64_t c = 0; c < cell_rows * cell_keys; c++) {
      const size_t at = size_t(h * cell_rows * cell_keys + c);
      close("cell sum", got.cell_sum[at], sums[size_t(c)], rounding * sums[size_t(c)] + tiny);
      close("cell maximum", got.cell_max[at], maxima[size_t(c)], rounding * maxima[size_t(c)] + tiny);
    }
  }
};
