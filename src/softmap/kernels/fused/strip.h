// One strip: up to ROWS queries of one head against all keys they may see.
//
// The strip's scores are held whole, in groups of tiles, and read three times:
//   1. score   a group's scores by the first product, and their maxima
//   2. weigh   exp2(score - row maximum) in place, sums, and the second product, while the numbers are in the cache
//   3. column  once a row's sum is known: what each key and each cell receives
// A row's maximum is that of its groups so far. When a later group raises it, what was summed is scaled down; each
// group remembers the maximum its numbers are relative to. All is in powers of 2: scale · log2(e) is folded into q.
//
// Where the rows' logsumexp is known, one look is enough: a tile is scored and its weights summed, before the next one.
#pragma once
#include <cmath>
#include <vector>

#include "exp2.h"
#include "pack.h"
#include "sums.h"
#include "top.h"

constexpr double LOG2_E = 1.4426950408889634, LN_2 = 0.6931471805599453;
constexpr int64_t WHOLE_TILES =
    256;  // rows up to 16,384 keys are one group: a strip of 4 MiB, read back from level 2 and 3
constexpr int64_t PART_TILES = 8;  // 512 keys
constexpr int64_t GROUP_TILES =
    16;  // longer ones go by 1,024 keys: 256 KiB, which stay in level 2 until they are weighed

// The keys and values of some heads, packed once for all strips.
struct Packed {
  int64_t tiles = 0;
  int depth = 0, width = 0;            // width: d_v up to a whole vector, 0 without values
  Buffer<float> keys, values, hidden;  // hidden: what is added to scores, -inf where no query sees a key
  std::vector<bool> some_hidden;       // of each tile; empty where all keys are seen
  const float* holes(int64_t tile) const {
    return some_hidden.empty() || !some_hidden[size_t(tile)] ? nullptr : hidden + size_t(tile) * TILE;
  }
  float* key_tile(int64_t head, int64_t tile) { return keys + size_t(head * tiles + tile) * TILE * depth; }
  float* value_tile(int64_t head, int64_t tile) { return values + size_t(head * tiles + tile) * TILE * width; }
};

// What the rows of a strip have summed: lane by lane within a group, one number a row across groups.
struct RowSums {
  alignas(64) float lanes[ROWS * LANES] = {};
  double total[ROWS];
  Vec lane(int row) const { return load(lanes + row * LANES); }
  void add(int row, Vec v) { store(lanes + row * LANES, lane(row) + v); }
};

class Strip {
  const Job& job;
  const KeyCells& cells;
  const int64_t group_tiles;
  const size_t peak_stride;  // of a row's maxima; not a power of two, whose lines would share one set of the cache
  Buffer<float> q, scores, peaks, part, output, added;  // part: the output of the last few tiles
  RowSums mass, weighted, signed_distance, ahead;       // of e, e x, e (i - j), and e (j - i) where j is after i
  float maximum[ROWS];                                  // of each row's scores so far
  float reference[ROWS];             // the same, but 0 where no key was seen yet, so that -inf - reference is -inf
  float unit[ROWS];                  // the weight of a score at the row's maximum
  float log_unit[ROWS];              // its log2
  std::vector<float> group_maximum;  // (groups, ROWS): the maximum each group's numbers are relative to
  std::vector<TopList> tops;
  TopFinder finder;
  void (Strip::*weigh_some)(float*, int, int, int64_t);  // weigh_rows for the statistics that are wanted

  struct Band {  // the rows that lie in one row of cells
    int from, to;
    int64_t cell_row;
  };
  std::vector<Band> bands;

  int64_t head = 0, row0 = 0, tile0 = 0, tile1 = 0;
  int64_t all_from = 0, all_to = 0;  // the keys that every row of the strip sees; none where a row sees nothing
  int rows = 0;

  int64_t held(int64_t tile) const { return job.known_high ? 0 : tile - tile0; }
  float* tile_scores(int64_t tile) { return scores + size_t(held(tile)) * ROWS * TILE; }
  float* tile_peaks(int64_t tile) { return peaks + size_t(held(tile)) * LANES; }

 public:
  // max_tiles: the most tiles that a strip of this job sees.
  Strip(const Job& job, const KeyCells& cells, int64_t max_tiles, int width)
      : job(job),
        cells(cells),
        group_tiles(max_tiles <= WHOLE_TILES ? WHOLE_TILES : GROUP_TILES),
        peak_stride(size_t((job.known_high ? 1 : max_tiles) + 1) * LANES),
        q(size_t(ROWS) * job.depth),
        scores(size_t(job.known_high ? 1 : max_tiles) * ROWS * TILE),
        peaks(peak_stride * ROWS),
        part(size_t(ROWS) * width),
        output(size_t(ROWS) * width),
        added(job.added ? size_t(max_tiles) * ROWS * TILE : 0),
        group_maximum(size_t((max_tiles + group_tiles - 1) / group_tiles + 1) * ROWS),
        tops(job.top ? ROWS : 0),
        weigh_some(job.entropy    ? job.distance ? &Strip::weigh_rows<true, true> : &Strip::weigh_rows<true, false>
                   : job.distance ? &Strip::weigh_rows<false, true>
                                  : &Strip::weigh_rows<false, false>) {}

  void run(Packed& packed, int64_t head_, int64_t packed_head, int64_t first_row, int row_count, Sums& sums) {
    head = head_, row0 = first_row, rows = row_count;
    find_tiles();
    ask_added();
    const FloatScope scope;
    prepare();
    if (job.known_high) return weigh_known(packed, packed_head, sums);
    int64_t group = 0;
    for (int64_t from = tile0; from < tile1; from += group_tiles, group++) {
      const int64_t to = std::min(tile1, from + group_tiles);
      score(packed, packed_head, from, to);
      raise_maxima(from, to, group, packed.width);
      for (int64_t tile = from; tile < to; tile++) {
        weigh(packed, packed_head, tile);
        if (tile + 1 == to || (tile + 1 - from) % PART_TILES == 0) close_part(packed.width);
      }
      close_group();
    }
    finish(packed.width);
    if (job.received || job.cell_sum) columns(group, sums);
  }

 private:
  // The tiles that matter to any row, and the keys that all rows see.
  void find_tiles() {
    int64_t first = job.keys, last = 0;
    all_from = 0, all_to = job.keys;
    for (int r = 0; r < rows; r++) {
      const int64_t start = job.start[row0 + r], stop = job.stop[row0 + r];
      all_from = std::max(all_from, start), all_to = std::min(all_to, stop);
      if (start < stop) first = std::min(first, start), last = std::max(last, stop);
    }
    tile0 = first < last ? first / TILE : 0;
    tile1 = first < last ? (last + TILE - 1) / TILE : 0;
  }

  void find_bands() {
    bands.clear();
    for (int from = 0; from < rows; from = bands.back().to) {
      const int64_t cell_row = job.cell_sum ? cell_row_of(job, row0 + from) : 0;
      const int64_t stop = job.cell_sum ? job.row_edges[cell_row + 1] : job.queries;
      bands.push_back({from, int(std::min<int64_t>(rows, stop - row0)), cell_row});
    }
  }

  void prepare() {
    find_bands();
    const double factor = job.softcap ? job.scale / job.softcap : job.scale * LOG2_E;
    for (int r = 0; r < rows; r++) {
      float* row = q + size_t(r) * job.depth;
      read_row(job.q, head, row0 + r, job.depth, row);
      for (int i = 0; i < job.depth; i++)
        row[i] = float(row[i] * factor);  // as a float, the factor's own rounding shows
      maximum[r] = -INFINITY;
    }
    for (RowSums* sums : {&mass, &weighted, &signed_distance, &ahead}) std::fill(sums->total, sums->total + rows, 0.);
    for (Buffer<float>* sums : {&part, &output}) std::fill(static_cast<float*>(*sums), *sums + sums->size(), 0.f);
    for (TopList& list : tops) list.count = 0;
  }

  // Outside of FloatScope: who answers has the floating-point environment of the caller.
  void ask_added() {
    if (job.added && tile0 < tile1)
      job.added(head, row0, row0 + rows, tile0 * TILE, std::min(job.keys, tile1 * TILE), added, (tile1 - tile0) * TILE);
  }

  // ---- 1. scores

  void score(Packed& packed, int64_t packed_head, int64_t from, int64_t to) {
    for (int64_t tile = from; tile < to; tile++) {
      const float* k = packed.key_tile(packed_head, tile);
      const float* next = packed.key_tile(packed_head, std::min(tile + 1, packed.tiles - 1));
      if (job.depth <= 64)
        score_tile<Narrow>(q, rows, job.depth, k, next, tile_scores(tile), tile_peaks(tile), peak_stride);
      else score_tile<Wide>(q, rows, job.depth, k, next, tile_scores(tile), tile_peaks(tile), peak_stride);
      const bool partly_hidden = tile * TILE < all_from || (tile + 1) * TILE > all_to;
      if (partly_hidden || packed.holes(tile) || job.added || job.softcap)
        adjust(tile, partly_hidden, packed.holes(tile));
    }
  }

  // Soft cap, then what is added, then -inf for what a row may not see; and the maxima anew.
  void adjust(int64_t tile, bool partly_hidden, const float* holes) {
    const float cap = float(job.softcap * LOG2_E);
    const Vec lanes = lane_numbers(), hidden = splat(-INFINITY);
    float* row = tile_scores(tile);
    for (int r = 0; r < rows; r++, row += TILE) {
      const Vec start = splat(float(std::clamp<int64_t>(job.start[row0 + r] - tile * TILE, 0, TILE)));
      const Vec stop = splat(float(std::clamp<int64_t>(job.stop[row0 + r] - tile * TILE, 0, TILE)));
      const float* more = job.added ? added + (size_t(r) * (tile1 - tile0) + (tile - tile0)) * TILE : nullptr;
      Vec peak = hidden;
      for (int j = 0; j < TILE; j += LANES) {
        Vec x = load(row + j);
        if (job.softcap) x = tanh_of(x) * cap;
        if (more) x += load(more + j) * float(LOG2_E);
        if (holes) x += load(holes + j);
        const Vec key = lanes + float(j);
        if (partly_hidden) x = ((key >= start) & (key < stop)) ? x : hidden;
        store(row + j, x);
        peak = larger(peak, x);
      }
      store(tile_peaks(tile) + r * peak_stride, peak);
    }
  }

  // ---- 2. weights

  // Row maxima and the largest scores, from the maxima of the tiles. Sums so far become relative to the new maximum.
  void raise_maxima(int64_t from, int64_t to, int64_t group, int width) {
    const int classes = maxima_for(job.top);
    for (int r = 0; r < rows; r++) {
      const float* peak = tile_peaks(from) + r * peak_stride;
      Vec maxima[MOST_MAXIMA], highest = splat(-INFINITY);
      group_maxima(peak, int(to - from), classes, maxima);
      for (int c = 0; c < classes; c++) highest = larger(highest, maxima[c]);
      const float largest = std::max(maximum[r], largest_of(highest));
      if (job.top)
        finder.update(tops[r], job.top, maxima, peak, int(to - from), tile_scores(from) + r * TILE, size_t(ROWS) * TILE,
                      uint32_t(from * TILE));
      if (largest > maximum[r] && maximum[r] > -INFINITY) scale_down(r, maximum[r] - largest, width);
      maximum[r] = largest;
      group_maximum[group * ROWS + r] = largest;
      reference[r] = largest > -INFINITY ? largest : 0.f;
    }
  }

  // All that row r has summed becomes relative to a maximum that is higher by -fall.
  void scale_down(int r, float fall, int width) {
    const float factor = std::exp2(fall);
    weighted.total[r] = (weighted.total[r] + mass.total[r] * double(fall)) * double(factor);
    for (RowSums* sums : {&mass, &signed_distance, &ahead}) sums->total[r] *= double(factor);
    for (int i = 0; i < width; i += LANES)
      store(output + size_t(r) * width + i, load(output + size_t(r) * width + i) * factor);
  }

  void weigh(Packed& packed, int64_t packed_head, int64_t tile) {
    float* e = tile_scores(tile);
    if (!packed.width) return (this->*weigh_some)(e, 0, rows, tile);
    const float* v = packed.value_tile(packed_head, tile);
    const bool narrow = packed.width == Narrow::vectors * LANES;
    const int lines = TILE * packed.width / 16, lines_a_row = (lines + rows - 1) / rows;
    const float* next = packed.value_tile(packed_head, std::min(tile + 1, packed.tiles - 1));
    // The first columns of the output right after each few rows' exponentials, while these are in the first-level
    // cache.
    const auto block = [&](auto shape) {
      typedef decltype(shape) Shape;
      constexpr int columns = Shape::vectors * LANES;
      in_row_blocks<Shape::rows>(0, rows, [&](auto R, int row) {
        for (int i = 0; i < R * lines_a_row; i++, next += 16) prefetch(next);
        for (int i = 0; i < R * TILE / 16; i++) prefetch(e + (ROWS + row) * TILE + i * 16);
        (this->*weigh_some)(e + row * TILE, row, R, tile);
        if (packed.width >= columns)
          output_block<R, Shape::vectors>(e + row * TILE, v, packed.width, part + size_t(row) * packed.width);
      });
      output_tile<Shape>(e, rows, v, packed.width, packed.width >= columns ? columns : 0, part);
    };
    if (narrow) block(Narrow());
    else block(Wide());
  }

  // Some rows of one tile: exp2 in place, and the sums.
  template <bool ENTROPY, bool DISTANCE>
  void weigh_rows(float* __restrict e, int row, int count, int64_t tile) {
    const Vec lanes = lane_numbers();
    for (int r = row; r < row + count; r++, e += TILE) {
      const Vec peak = splat(reference[r]);
      Vec sum{}, product{}, places{};
      SOFTMAP_UNROLL for (int j = 0; j < TILE; j += LANES) {
        Vec x = load(e + j) - peak;
        const Vec power = exp2_of(x);
        store(e + j, power);
        sum += power;
        if (ENTROPY) product += power * x;
        if (DISTANCE) places += power * (lanes + float(j));
      }
      mass.add(r, sum);
      if (ENTROPY) weighted.add(r, product);
      if (DISTANCE) {
        const float here = float(row0 + r + job.offset - tile * TILE);  // the query's place from the tile's first key
        signed_distance.add(r, here * sum - places);
        if (here < TILE - 1) count_ahead(e, r, here);
      }
    }
  }

  // The part of the distance that lies after the query; tiles wholly before it have none.
  void count_ahead(const float* e, int r, float here) {
    const Vec lanes = lane_numbers(), zero{};
    Vec sum{};
    for (int j = 0; j < TILE; j += LANES) sum += load(e + j) * larger(lanes + (float(j) - here), zero);
    ahead.add(r, sum);
  }

  // The output is summed in parts: a float that thousands of products are added to one by one loses a digit.
  void close_part(int width) {
    for (size_t i = 0; i < size_t(rows) * width; i += LANES) {
      store(output + i, load(output + i) + load(part + i));
      store(part + i, Vec{});
    }
  }

  void close_group() {
    for (RowSums* sums : {&mass, &weighted, &signed_distance, &ahead}) {
      for (int r = 0; r < rows; r++) sums->total[r] += double(sum_of(sums->lane(r)));
      std::fill(sums->lanes, sums->lanes + rows * LANES, 0.f);
    }
  }

  // ---- the rows' results

  void finish(int width) {
    for (int r = 0; r < rows; r++) {
      const int64_t at = head * job.queries + row0 + r;
      const bool empty = maximum[r] == -INFINITY;
      double highest = double(maximum[r]), total = mass.total[r], key_unit = empty ? 0. : 1. / total;
      if (job.sinks) {  // the softmax runs over the keys and the sink
        const double sink = double(job.sinks[head]) * LOG2_E;
        highest = std::max(highest, sink);
        const double share = std::exp2(double(maximum[r]) - highest);  // of the unit that the keys are counted in
        total = total * share + std::exp2(sink - highest);
        key_unit = share / total;
      }
      const double log_total = std::log2(total), log_key_unit = job.sinks ? std::log2(key_unit) : -log_total;
      unit[r] = float(key_unit), log_unit[r] = key_unit > 0 ? float(log_key_unit) : -INFINITY;
      if (job.logsumexp) job.logsumexp[at] = (highest + log_total) * LN_2;
      if (job.entropy)
        job.entropy[at] =
            key_unit > 0 ? float(-LN_2 * key_unit * (weighted.total[r] + log_key_unit * mass.total[r])) + 0.f : 0.f;
      if (job.distance) {
        job.signed_distance[at] = float(signed_distance.total[r] * key_unit);
        job.distance[at] = float((signed_distance.total[r] + 2 * ahead.total[r]) * key_unit);
      }
      if (job.top) write_top(tops[r], r, at);
      if (job.output)
        for (int i = 0; i < job.width; i++) job.output[at * job.width + i] = output[size_t(r) * width + i] * unit[r];
    }
  }

  void write_top(const TopList& list, int r, int64_t at) {
    alignas(64) float x[TOP_LIMIT];
    const int whole = (job.top + LANES - 1) / LANES * LANES;
    for (int i = 0; i < whole; i++) x[i] = i < list.count ? score_of(list.entries[i]) - maximum[r] : -INFINITY;
    for (int i = 0; i < whole; i += LANES) {
      Vec power = load(x + i);
      store(x + i, exp2_of(power) * unit[r]);
    }
    for (int i = 0; i < job.top; i++) {
      // of neighbouring floats exp2_of can round the lower one's power up, and that of the higher one down
      if (i) x[i] = std::min(x[i], x[i - 1]);
      job.top_weights[at * job.top + i] = x[i];
      job.top_keys[at * job.top + i] = i < list.count ? int64_t(key_of(list.entries[i])) : -1;
    }
  }

  // ---- 3. columns

  void columns(int64_t groups, Sums& sums) {
    for (int r = 0; r < rows; r++) {
      for (int64_t g = 0; g < groups; g++) {  // from here on: the weight of a number of 1 in that group and row
        float& x = group_maximum[g * ROWS + r];
        x = unit[r] > 0 ? std::exp2(x - maximum[r]) * unit[r] : 0.f;
      }
    }
    for (const Band& band : bands)
      for (int64_t tile = tile0; tile < tile1; tile++) {
        alignas(64) float column[TILE], largest[TILE];
        const float *e = tile_scores(tile), *weight = &group_maximum[(tile - tile0) / group_tiles * ROWS];
        const bool cut = job.cell_sum && !cells.whole(tile);  // by the edge of a cell
        if (cut) sum_columns<true>(e, weight, band.from, band.to, column, largest);
        else sum_columns<false>(e, weight, band.from, band.to, column, largest);
        if (job.received) {
          float* received = sums.received + size_t(tile - sums.first_tile) * TILE;
          SOFTMAP_UNROLL for (int j = 0; j < TILE; j += LANES)
              store(received + j, load(received + j) + load(column + j));
        }
        if (cut) sums.add_cut(job, cells, band.cell_row, tile, column, largest);
        else if (job.cell_sum)
          sums.add(band.cell_row, cells.first(tile), sum_between(column, 0, TILE),
                   tile_maximum(tile, band.from, band.to));
      }
  }

  // For each key of a tile the sum of its weights in these rows and, where asked for, the largest.
  template <bool LARGEST>
  static void sum_columns(const float* e, const float* weight, int from, int to, float* __restrict column,
                          float* __restrict largest) {
    constexpr int VECTORS = LANES == 16 || !LARGEST ? 4 : 2;  // two rows at a time, in registers
    SOFTMAP_UNROLL for (int c = 0; c < TILE; c += VECTORS * LANES) {
      Vec even[VECTORS] = {}, odd[VECTORS] = {}, high[VECTORS] = {};
      int r = from;
      for (; r + 1 < to; r += 2) {
        const Vec w0 = splat(weight[r]), w1 = splat(weight[r + 1]);
        SOFTMAP_UNROLL for (int i = 0; i < VECTORS; i++) {
          const Vec e0 = load(e + r * TILE + c + i * LANES), e1 = load(e + (r + 1) * TILE + c + i * LANES);
          even[i] += w0 * e0, odd[i] += w1 * e1;
          if (LARGEST) high[i] = larger(high[i], larger(w0 * e0, w1 * e1));
        }
      }
      if (r < to) {
        const Vec w0 = splat(weight[r]);
        SOFTMAP_UNROLL for (int i = 0; i < VECTORS; i++) {
          const Vec e0 = load(e + r * TILE + c + i * LANES);
          even[i] += w0 * e0;
          if (LARGEST) high[i] = larger(high[i], w0 * e0);
        }
      }
      SOFTMAP_UNROLL for (int i = 0; i < VECTORS; i++) {
        store(column + c + i * LANES, even[i] + odd[i]);
        if (LARGEST) store(largest + c + i * LANES, high[i]);
      }
    }
  }

  // The largest weight of a tile, from the maxima of its scores: 2^(score - maximum + log2(unit)) is monotone.
  float tile_maximum(int64_t tile, int from, int to) {
    Vec even = splat(-INFINITY), odd = even;  // two at a time: a maximum waits for the one before it
    const float* peak = tile_peaks(tile);
    const auto log_weight = [&](int r) { return (load(peak + r * peak_stride) - reference[r]) + log_unit[r]; };
    int r = from;
    for (; r + 1 < to; r += 2) even = larger(even, log_weight(r)), odd = larger(odd, log_weight(r + 1));
    if (r < to) even = larger(even, log_weight(r));
    return std::exp2(largest_of(larger(even, odd)));
  }

  // ---- weights whose rows' logsumexp is known

  void weigh_known(Packed& packed, int64_t packed_head, Sums& sums) {
    for (int r = 0; r < rows; r++) {
      const size_t at = size_t(head * job.queries + row0 + r);
      const double high = job.known_high[at] * LOG2_E;
      const bool empty = !(high > -INFINITY);
      reference[r] = empty ? 0.f : float(high);
      unit[r] = empty ? 0.f : float(std::exp2(double(reference[r]) - high - job.known_low[at] * LOG2_E));
    }
    for (int64_t tile = tile0; tile < tile1; tile++) {
      score(packed, packed_head, tile, tile + 1);
      for (const Band& band : bands) {
        alignas(64) float column[TILE], largest[TILE];
        weigh_columns(tile_scores(tile), band.from, band.to, column, largest);
        if (cells.whole(tile))
          sums.add(band.cell_row, cells.first(tile), sum_between(column, 0, TILE), largest_of_tile(largest));
        else sums.add_cut(job, cells, band.cell_row, tile, column, largest);
      }
    }
  }

  // As sum_columns, straight from the scores.
  void weigh_columns(const float* x, int from, int to, float* __restrict column, float* __restrict largest) {
    constexpr int VECTORS = LANES == 16 ? 4 : 2;
    SOFTMAP_UNROLL for (int c = 0; c < TILE; c += VECTORS * LANES) {
      Vec sum[VECTORS] = {}, high[VECTORS] = {};
      for (int r = from; r < to; r++) {
        const Vec peak = splat(reference[r]), one = splat(unit[r]);
        SOFTMAP_UNROLL for (int i = 0; i < VECTORS; i++) {
          Vec power = load(x + r * TILE + c + i * LANES) - peak;
          const Vec weight = exp2_of(power) * one;
          sum[i] += weight, high[i] = larger(high[i], weight);
        }
      }
      SOFTMAP_UNROLL for (int i = 0; i < VECTORS; i++) {
        store(column + c + i * LANES, sum[i]);
        store(largest + c + i * LANES, high[i]);
      }
    }
  }

  static float largest_of_tile(const float* x) {
    Vec high = load(x);
    SOFTMAP_UNROLL for (int j = LANES; j < TILE; j += LANES) high = larger(high, load(x + j));
    return largest_of(high);
  }
};
