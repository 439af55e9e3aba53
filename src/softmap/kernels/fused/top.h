// The largest scores of a row, exactly, while looking at few of them.
//
// The products leave, for each tile, the maximum of its scores lane by lane. Maxima over disjoint groups of scores bound
// the k-th largest score from below: at least k scores reach the k-th largest of the group maxima. So one pass over the
// maxima (one vector for 64 scores) gives a threshold, and only tiles whose maxima reach it are opened: about ten of a
// row. Their scores that reach it are the candidates.
//
// A candidate is one integer, so that one comparison decides by score, and by the lower key where scores are equal.
#pragma once
#include <algorithm>
#include <cfloat>
#include <functional>

#include "products.h"

constexpr int TOP_LIMIT = 64;

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

class TopFinder {
  static constexpr int CAPACITY = 256;
  static constexpr int CLASSES = 2 * TOP_LIMIT / LANES;
  Candidate buffer[CAPACITY];
  int count = 0;

  // Keeps the k best; later keys must then be strictly larger than the last of them.
  float shrink(int k) {
    std::nth_element(buffer, buffer + k - 1, buffer + count, std::greater<Candidate>());
    count = k;
    return next_up(score_of(buffer[k - 1]));
  }

  // The k-th largest of n group maxima, -inf if there are fewer.
  static float kth_largest(const float* maxima, int n, int k) {
    float kth = INFINITY;
    for (int i = 0; i < n; i++) {
      const Vec one = splat(maxima[i]);
      int reached = 0;  // how many do not exceed this one
      for (int j = 0; j < n; j += LANES) reached += __builtin_popcount(at_least(one, load(maxima + j)));
      if (n - reached < k && maxima[i] < kth) kth = maxima[i];
    }
    return kth;
  }

  void collect(const float* scores, uint32_t key, float threshold) {
    for (int j = 0; j < TILE; j += LANES)
      for (uint32_t bits = at_least(load(scores + j), splat(threshold)); bits; bits &= bits - 1) {
        const int i = j + __builtin_ctz(bits);
        buffer[count++] = candidate(scores[i], key + i);
      }
  }

 public:
  // Takes one row's scores of `tiles` tiles into its list. peaks: [tiles][LANES]; scores: the row in the first tile, the
  // next tile `tile_stride` further on; key: the first key. Keys must be larger than those of earlier calls.
  void update(TopList& list, int k, const float* peaks, int tiles, const float* scores, size_t tile_stride,
              uint32_t key) {
    const int classes = (2 * k + LANES - 1) / LANES;
    float maxima[CLASSES * LANES];
    Vec best[CLASSES];
    for (int c = 0; c < classes; c++) best[c] = splat(-INFINITY);
    for (int t = 0; t < tiles; t += classes)
      for (int c = 0; c < classes && t + c < tiles; c++) best[c] = larger(best[c], load(peaks + (t + c) * LANES));
    for (int c = 0; c < classes; c++) store(maxima + c * LANES, best[c]);

    float threshold = std::max(kth_largest(maxima, classes * LANES, k), -FLT_MAX);  // hidden keys never qualify
    if (list.count == k) threshold = std::max(threshold, next_up(score_of(list.entries[k - 1])));
    std::copy(list.entries, list.entries + list.count, buffer);
    count = list.count;
    for (int t = 0; t < tiles; t++) {
      if (!at_least(load(peaks + t * LANES), splat(threshold))) continue;
      collect(scores + t * tile_stride, key + uint32_t(t) * TILE, threshold);
      if (count > CAPACITY - TILE) threshold = std::max(threshold, shrink(k));
    }
    if (count > k && count > TOP_LIMIT) shrink(k);
    // Sorting a few distinct integers: each one's place is the number of larger ones.
    list.count = std::min(count, k);
    for (int i = 0; i < count; i++) {
      int place = 0;
      for (int j = 0; j < count; j++) place += buffer[j] > buffer[i];
      if (place < k) list.entries[place] = buffer[i];
    }
  }
};
