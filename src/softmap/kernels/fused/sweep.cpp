// The whole matrix: heads are packed, cut into chunks of strips, and shared among threads.
#include "sweep.h"

#include <memory>

#include "strip.h"
#include "team.h"

namespace {

constexpr int64_t CHUNKS = 32;  // of a head at most: that many can be under way at once, and each has sums of its own
constexpr size_t PACKED_FLOATS = size_t(16) << 20;  // heads packed together: small ones share a round of threads

// The tiles that any of these queries may see.
struct TileRange {
  int64_t first = 0, last = 0;
};
TileRange tiles_of(const Job& job, int64_t row0, int64_t row1) {
  int64_t first = job.keys, last = 0;
  for (int64_t i = row0; i < row1; i++)
    if (job.start[i] < job.stop[i]) first = std::min(first, job.start[i]), last = std::max(last, job.stop[i]);
  if (first >= last) return {};
  return {first / TILE, (last + TILE - 1) / TILE};
}

class Sweep {
  const Job& job;
  Team team;
  const KeyCells cells;
  Packed packed;
  const int64_t chunk_rows, chunks;
  int64_t max_tiles = 1;

  struct Head {
    std::vector<Sums> sums;
    std::atomic<int64_t> left;
  };
  std::unique_ptr<Head[]> heads;
  std::vector<std::unique_ptr<Strip>> strips;  // one a thread

 public:
  explicit Sweep(const Job& job)
      : job(job),
        team(job.threads, job.check_interrupt),
        cells(job),
        chunk_rows(((job.queries + ROWS - 1) / ROWS + CHUNKS - 1) / CHUNKS * ROWS),
        chunks((job.queries + chunk_rows - 1) / chunk_rows),
        heads(new Head[size_t(job.heads)]),
        strips(size_t(team.size())) {
    packed.tiles = (job.keys + TILE - 1) / TILE;
    packed.depth = job.depth;
    packed.width = job.output ? (job.width + LANES - 1) / LANES * LANES : 0;
    for (int64_t row = 0; row < job.queries; row += ROWS) {
      const TileRange range = tiles_of(job, row, std::min(job.queries, row + ROWS));
      max_tiles = std::max(max_tiles, range.last - range.first);
    }
    if (job.seen) find_hidden();
  }

  void run() {
    const size_t head_floats = size_t(packed.tiles) * TILE * (packed.depth + packed.width);
    const int64_t at_once = std::clamp<int64_t>(int64_t(PACKED_FLOATS / head_floats), 1, job.kv_heads);
    packed.keys.resize(size_t(at_once * packed.tiles) * TILE * packed.depth);
    packed.values.resize(size_t(at_once * packed.tiles) * TILE * packed.width);
    for (int64_t first = 0; first < job.kv_heads; first += at_once) {
      const int64_t count = std::min(at_once, job.kv_heads - first);
      pack(first, count);
      sweep_heads(first, count);
    }
  }

 private:
  void find_hidden() {
    packed.hidden.resize(size_t(packed.tiles) * TILE);
    packed.some_hidden.assign(size_t(packed.tiles), false);
    for (int64_t key = 0; key < packed.tiles * TILE; key++) {
      const bool seen = key >= job.keys || job.seen[key];
      packed.hidden[key] = seen ? 0.f : -INFINITY;
      if (!seen) packed.some_hidden[size_t(key / TILE)] = true;
    }
  }

  void pack(int64_t first, int64_t count) {
    constexpr int64_t SHARE = 64;  // tiles of a task: a few are not worth a thread
    const int64_t shares = (packed.tiles + SHARE - 1) / SHARE;
    team.each(count * shares, [&](int64_t task, int) {
      const int64_t head = task / shares, from = task % shares * SHARE;
      Buffer<float> scratch(size_t(TILE) * packed.depth);
      for (int64_t tile = from; tile < std::min(packed.tiles, from + SHARE); tile++) {
        pack_keys(job.k, first + head, tile * TILE, job.keys, packed.depth, scratch, packed.key_tile(head, tile));
        if (packed.width)
          pack_values(job.v, first + head, tile * TILE, job.keys, job.width, packed.width,
                      packed.value_tile(head, tile));
      }
    });
  }

  // Under a causal mask a later chunk has more to do: the last ones come first, so that the end is shared well.
  void sweep_heads(int64_t first_kv, int64_t count) {
    const int64_t group = job.heads / job.kv_heads;
    for (int64_t head = first_kv * group; head < (first_kv + count) * group; head++) {
      heads[head].sums.resize(size_t(chunks));
      heads[head].left = chunks;
    }
    team.each(count * group * chunks, [&](int64_t task, int member) {
      if (!strips[member]) strips[member].reset(new Strip(job, cells, max_tiles, packed.width));
      const int64_t head = first_kv * group + task / chunks, chunk = chunks - 1 - task % chunks;
      sweep_chunk(*strips[member], head, head / group - first_kv, chunk, member);
      if (--heads[head].left == 0) {
        const FloatScope scope;
        add_up(job, head, heads[head].sums);
        std::vector<Sums>().swap(heads[head].sums);
      }
    });
  }

  void sweep_chunk(Strip& strip, int64_t head, int64_t packed_head, int64_t chunk, int member) {
    const int64_t row0 = chunk * chunk_rows, row1 = std::min(job.queries, row0 + chunk_rows);
    const TileRange range = tiles_of(job, row0, row1);
    Sums& sums = heads[head].sums[size_t(chunk)];
    sums.start(job, row0, row1, range.first, range.last);
    for (int64_t row = row0; row < row1; row += ROWS) {
      team.checkpoint(member);
      strip.run(packed, head, packed_head, row, int(std::min<int64_t>(ROWS, row1 - row)), sums);
    }
  }
};

}  // namespace

void sweep(const Job& job) { Sweep(job).run(); }
