// The largest scores of a row, exactly, while looking at few of them.
//
// The products leave, for each tile, the maximum of its scores lane by lane. Maxima over disjoint groups of scores
// bound the k-th largest score from below: at least k scores reach the k-th largest of the group maxima. So one pass
// over the maxima (one vector for 64 scores) gives a threshold, and only tiles whose maxima reach it are opened: few of
// a row. Their scores that reach it are the candidates.
//
// A candidate is one integer, so that one comparison decides by score, and by the lower key where scores are equal.
#pragma once
#include <algorithm>
#include <cfloat>
#include <functional>

#include "products.h"
#include "sweep.h"

typedef uint64_t Candidate;

SOFTMAP_INLINE Candidate candidate(float score, uint32_t key) {
  score += 0.f;  // -0 becomes 0, so that the two tie
  int32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  const uint32_t rising = uint32_t(bits) ^ (bits < 0 ? 0xffffffffu : 0x80000000u);  // ordered as the scores are
  return uint64_t(rising) << 32 | uint32_t(~key);
}
SOFTMAP_INLINE uint32_t key_of(Candidate c) { return ~uint32_t(c); }
SOFTMAP_INLINE float score_of(Candidate c) {
  const uint32_t rising = uint32_t(c >> 32), bits = rising & 0x80000000u ? rising ^ 0x80000000u : ~rising;
  float score;
  std::memcpy(&score, &bits, sizeof score);
  return score;
}

// The next larger float; from 0 the smallest normal one, since denormals count as 0 here.
SOFTMAP_INLINE float next_up(float x) {
  if (x == 0.f) return FLT_MIN;
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits += bits < 0 ? -1 : 1;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

struct TopList {  // the best so far of one row, in falling order
  int count = 0;
  Candidate entries[TOP_LIMIT];
};

// How many vectors of group maxima serve a top of k: 2 k groups, so that few scores reach the k-th largest of them.
SOFTMAP_INLINE int maxima_for(int k) { return k ? (2 * k + LANES - 1) / LANES : 1; }
constexpr int MOST_MAXIMA = 2 * TOP_LIMIT / LANES;

// The maxima of a row's tiles, peaks[tiles][LANES], in `count` classes: tile t counts in class t % count.
SOFTMAP_INLINE void group_maxima(const float* peaks, int tiles, int count, Vec* maxima) {
  for (int c = 0; c < count; c++) {
    Vec even = splat(-INFINITY), odd = even;  // two at a time: a maximum waits for the one before it
    int t = c;
    for (; t + count < tiles; t += 2 * count) {
      even = larger(even, load(peaks + t * LANES));
      odd = larger(odd, load(peaks + (t + count) * LANES));
    }
    if (t < tiles) even = larger(even, load(peaks + t * LANES));
    maxima[c] = larger(even, odd);
  }
}

class TopFinder {
  static constexpr int CAPACITY = 3 * TOP_LIMIT + TILE;
  typedef Candidate Candidates __attribute__((vector_size(LANES * 4)));
  static constexpr int STEP = LANES / 2;
  Candidate buffer[CAPACITY + STEP];
  int count = 0;

  // Keeps the k best; later keys must then be strictly larger than the last of them.
  float shrink(int k) {
    std::nth_element(buffer, buffer + k - 1, buffer + count, std::greater<Candidate>());
    count = k;
    return next_up(score_of(buffer[k - 1]));
  }

  // The k-th largest of the group maxima, -inf if there are fewer: the least of those with fewer than k above them.
  // All are compared with all, a vector at a time, by reading the maxima round a ring.
  static float kth_largest(const Vec* maxima, int vectors, int k) {
    const int n = vectors * LANES;
    float ring[2 * MOST_MAXIMA * LANES];
    for (int v = 0; v < vectors; v++) store(ring + v * LANES, maxima[v]), store(ring + n + v * LANES, maxima[v]);
    Vec kth = splat(INFINITY);
    for (int v = 0; v < vectors; v++) {
      IntVec above{};
      for (int i = 1; i < n; i++) above -= (IntVec)(load(ring + v * LANES + i) > maxima[v]);
      kth = -larger(-kth, -(above < k ? maxima[v] : splat(INFINITY)));
    }
    return -largest_of(-kth);
  }

  void collect(const float* scores, uint32_t key, float threshold) {
    uint64_t reached = 0;
    SOFTMAP_UNROLL for (int j = 0; j < TILE; j += LANES) reached |=
        uint64_t(at_least(load(scores + j), splat(threshold))) << j;
    const auto take = [&] {
      const int j = __builtin_ctzll(reached | uint64_t(1) << 63);
      buffer[count] = candidate(scores[j], key + uint32_t(j));
      count += reached != 0;
      reached &= reached - 1;
    };
    take(), take();  // one or two are the rule, and asking which would be a guess
    while (reached) take();
  }

  // Sorting a few distinct integers: each one's place is the number of larger ones.
  void sort_into(TopList& list, int k) {
    Candidate sorted[TOP_LIMIT + STEP];
    for (int i = 0; i < count; i += STEP) {
      Candidates some, place{};
      std::memcpy(&some, buffer + i, sizeof some);  // beyond count: numbers whose places are not used
      for (int j = 0; j < count; j++) place -= (Candidates)(buffer[j] > some);
      for (int lane = 0; lane < STEP && i + lane < count; lane++) sorted[place[lane]] = some[lane];
    }
    list.count = std::min(count, k);
    std::copy(sorted, sorted + list.count, list.entries);
  }

 public:
  // Takes one row's scores of `tiles` tiles into its list. maxima: their group_maxima; peaks: [tiles][LANES]; scores:
  // the row in the first tile, the next tile `tile_stride` further on; key: the first key, larger than all of earlier
  // calls.
  void update(TopList& list, int k, const Vec* maxima, const float* peaks, int tiles, const float* scores,
              size_t tile_stride, uint32_t key) {
    float threshold = std::max(kth_largest(maxima, maxima_for(k), k), -FLT_MAX);  // hidden keys never qualify
    if (list.count == k) threshold = std::max(threshold, next_up(score_of(list.entries[k - 1])));
    std::copy(list.entries, list.entries + list.count, buffer);
    count = list.count;
    // Rows of equal scores fill the buffer at once: a small one raises the threshold early. It must outgrow k to pay.
    const int full = std::max(TILE, 3 * k);
    for (int from = 0; from < tiles; from += 64) {
      uint64_t reached = 0;  // first find the tiles, then open them: the branch on each would be a guess
      for (int t = from; t < std::min(tiles, from + 64); t++)
        reached |= uint64_t(at_least(load(peaks + t * LANES), splat(threshold)) != 0) << (t - from);
      for (; reached; reached &= reached - 1) {
        const int t = from + __builtin_ctzll(reached);
        collect(scores + t * tile_stride, key + uint32_t(t) * TILE, threshold);
        if (count > full) threshold = std::max(threshold, shrink(k));
      }
    }
    if (count > TOP_LIMIT) shrink(k);
    sort_into(list, k);
  }
};
