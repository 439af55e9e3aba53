// The compiled kernel without Python, for sanitizers and other processors: sweeps of many shapes against plain loops,
// threads, and what is thrown in their midst. Prints one line a family; fails at the first number that is wrong.
//
//     driver [all | quick | threads]      quick: for an emulator
#include <atomic>
#include <cfenv>
#include <cstdio>
#include <functional>
#include <thread>

#include "naive.h"
#include "simd.h"

namespace {

enum class Amount { all, quick, threads } amount = Amount::all;

class Dice {
  std::mt19937 random{7};

 public:
  template <class T>
  T of(std::initializer_list<T> choices) {
    return choices.begin()[random() % choices.size()];
  }
  int64_t upto(int64_t last) { return 1 + int64_t(random() % uint64_t(last)); }
  uint32_t seed() { return uint32_t(random()); }
} dice;

int checked = 0;

void check(Shape shape) {
  shape.seed = dice.seed();
  const Problem problem(shape);
  try {
    const Results results = problem.sweep(int(dice.upto(3)));
    Naive(problem, results).check();
    if (shape.cell_rows) Naive(problem, problem.with_known_cells(results, int(dice.upto(3)))).check();
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(std::string(error.what()) + " (" + std::to_string(shape.heads) + " heads, " +
                             std::to_string(shape.queries) + " x " + std::to_string(shape.keys) + ", d_k " +
                             std::to_string(shape.depth) + ", d_v " + std::to_string(shape.width) + ", top " +
                             std::to_string(shape.top) + ")");
  }
  checked++;
}

void require(bool true_, const char* what) {
  if (!true_) throw std::runtime_error(what);
  checked++;
}

// A third of the cases where an emulator runs them.
int cases(int number) { return amount == Amount::quick ? (number + 2) / 3 : number; }

int64_t edge() { return dice.of<int64_t>({1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257}); }

Shape any_shape() {
  Shape s;
  s.queries = dice.upto(2) == 1 ? edge() : dice.upto(300);
  s.keys = dice.upto(2) == 1 ? edge() : dice.upto(300);
  if (amount == Amount::quick) s.queries = std::min<int64_t>(s.queries, 70);
  s.depth = dice.of({1, 2, 3, 4, 7, 8, 15, 16, 17, 33, 64, 65, 80});
  s.width = dice.of({-1, 0, 1, 3, 4, 15, 16, 17, 31, 33, 64, 80});
  s.top = dice.of({0, 1, 2, 8, 31, 33, 64});
  s.offset = dice.of<int64_t>({0, 5, -5, s.keys - s.queries});
  s.see = dice.of({See::all, See::causal, See::window});
  s.statistics = dice.upto(4) > 1;
  return s;
}

void shapes() {
  for (int i = 0; i < cases(30); i++) check(any_shape());
  Shape widest;
  widest.depth = widest.width = 256, widest.queries = 65, widest.keys = 129;
  check(widest);
}

void groups() {
  for (int i = 0; i < cases(6); i++) {
    Shape s = any_shape();
    s.kv_heads = dice.of<int64_t>({1, 2, 3}), s.heads = s.kv_heads * dice.of<int64_t>({1, 2, 4});
    s.queries = std::min<int64_t>(s.queries, 129);
    check(s);
  }
}

void dtypes_and_gaps() {
  for (Dtype dtype : {Dtype::float32, Dtype::float16, Dtype::bfloat16})
    for (int i = 0; i < cases(5); i++) {
      Shape s = any_shape();
      s.dtype = dtype, s.heads = s.kv_heads = 2;
      s.row_gap = dice.of<int64_t>({0, 1, 7}), s.head_gap = dice.of<int64_t>({0, 3});
      s.size = dice.of({1.f, 1e-3f, 2e-5f}), s.scale /= s.size;  // the last: below float16's normal numbers
      check(s);
    }
}

void spans() {
  for (See see : {See::all, See::causal, See::window, See::some_empty, See::none})
    for (bool added : {false, true})
      for (int i = 0; i < cases(3); i++) {
        Shape s = any_shape();
        s.see = see, s.added = added, s.heads = 2, s.holes = dice.upto(2) == 1;
        s.sinks = dice.upto(2) == 1;
        check(s);
      }
}

void caps_and_sinks() {
  for (double softcap : {0., 0.5, 50.})
    for (double scale : {-0.5, 1e-6, 3., 40.}) {
      Shape s = any_shape();
      s.softcap = softcap, s.scale = scale, s.sinks = true, s.added = dice.upto(2) == 1, s.heads = 2;
      check(s);
    }
}

void tops() {
  for (int top : {0, 1, 2, 7, 8, 16, 31, 32, 33, 63, 64})
    for (Keys kind : {Keys::normal, Keys::of_five_kinds, Keys::zero_but_the_last}) {
      Shape s = any_shape();
      s.top = top, s.kind = kind;
      if (dice.upto(3) == 1) s.keys = std::min<int64_t>(s.keys, 40);
      check(s);
    }
}

void cells() {
  for (int64_t size : {1, 2, 7, 64, 300})
    for (int i = 0; i < cases(3); i++) {
      Shape s = any_shape();
      s.cell_rows = size, s.cell_keys = dice.of<int64_t>({size, 1, 300});
      check(s);
    }
  for (int64_t size : {2, 4, 8, 16, 32, 64, 128}) {  // cells of a power of two, which a tile is made of
    Shape s = any_shape();
    s.keys = size * dice.upto(300 / size), s.cell_keys = s.keys / size, s.cell_rows = dice.upto(s.queries);
    check(s);
  }
}

// Beyond 16,384 keys a strip goes by groups; rising scores raise the rows' maxima from one to the next.
void long_rows() {
  for (int i = 0; i < (amount == Amount::quick ? 1 : 3); i++) {
    Shape s;
    s.queries = amount == Amount::quick ? 3 : 70, s.keys = 16385 + 1024 * i + 13, s.depth = 3, s.width = 9;
    s.kind = i == 1 ? Keys::normal : Keys::rising, s.added = i == 2, s.top = 64, s.cell_rows = 5, s.cell_keys = 64;
    s.offset = i == 0 ? 40 : s.keys - s.queries, s.see = i == 2 ? See::causal : See::all;
    check(s);
  }
}

// Enough strips that every thread has some.
Shape of_many_strips() {
  Shape s;
  s.heads = 4, s.kv_heads = 2, s.queries = amount == Amount::quick ? 130 : 513, s.keys = 257;
  s.depth = 17, s.width = 33, s.see = See::causal, s.added = true, s.sinks = true, s.cell_rows = s.cell_keys = 30;
  return s;
}

void threads() {
  for (bool added : {false, true}) {
    Shape s = of_many_strips();
    s.added = added;
    const Problem problem(s);
    const Results alone = problem.sweep(1);
    Naive(problem, alone).check();
    const Results known = problem.with_known_cells(alone);
    for (int count = 2; count <= 8; count++) {
      require(problem.sweep(count) == alone, "threads change a result");
      require(problem.with_known_cells(alone, count) == known, "threads change a cell");
    }

    std::vector<std::thread> callers;  // as many sweeps at once, each with threads of its own
    std::atomic<int> same{0};
    for (int i = 0; i < 4; i++) callers.emplace_back([&] { same += problem.sweep(2) == alone; });
    for (std::thread& caller : callers) caller.join();
    require(same == 4, "sweeps at the same time change a result");
  }
}

struct Stop {};

void exceptions() {
  const Problem problem(of_many_strips());
  const Results right = problem.sweep();
  for (int threads : {1, 2, 5})
    for (int last : {0, 1, 6}) {
      Results results;
      Job job = problem.job(results, threads);
      std::atomic<int> calls{0};
      const auto added = job.added;
      job.added = [&](auto... arguments) {
        if (calls++ >= last) throw Stop();
        added(arguments...);
      };
      bool thrown = false;
      try {
        sweep(job);
      } catch (const Stop&) {
        thrown = true;
      }
      require(thrown, "what a callback throws does not come out");
      require(problem.sweep(threads) == right, "a sweep after one that was stopped is wrong");
    }
}

// The callback takes its time, so that there is an interrupt to look for on any machine.
void interrupts() {
  const Problem problem(of_many_strips());
  const Results right = problem.sweep();
  for (int threads : {1, 3}) {
    Results results;
    Job job = problem.job(results, threads);
    const auto added = job.added;
    std::atomic<int> strips{0};
    job.added = [&](auto... arguments) {
      strips++;
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      added(arguments...);
    };
    job.check_interrupt = [] { throw Stop(); };
    bool thrown = false;
    try {
      sweep(job);
    } catch (const Stop&) {
      thrown = true;
    }
    require(thrown && strips < 12, "an interrupt does not stop a sweep soon");
    require(problem.sweep(threads) == right, "a sweep after an interrupt is wrong");
  }
}

void too_little_memory() {
  const Problem problem{Shape()};
  for (int threads : {1, 3}) {
    Results results;
    Job job = problem.job(results, threads);
    job.keys = int64_t(1) << 46;  // as one row, read again and again
    job.k.head_stride = job.k.row_stride = job.v.head_stride = job.v.row_stride = 0;
    job.cell_sum = job.cell_max = nullptr;
    bool thrown = false;
    try {
      sweep(job);
    } catch (const std::bad_alloc&) {
      thrown = true;
    }
    require(thrown, "too little memory goes unnoticed");
    Naive(problem, problem.sweep(threads)).check();
  }
}

bool denormals_count() {
  volatile float small = 1e-40f;
  return small * 1.f != 0.f && small * 0x1p20f > 0.f;
}

void float_environment() {
  bool flushed;
  {
    const FloatScope scope;
    flushed = !denormals_count();
  }
  require(flushed, "a FloatScope does not flush denormals");
  const Problem problem(of_many_strips());
  Shape plain = of_many_strips();
  plain.added = false;
  const Problem without_callback(plain);
  const Results right = without_callback.sweep();
  for (int mode : {FE_TONEAREST, FE_UPWARD, FE_TOWARDZERO}) {
    std::fesetround(mode);
    std::atomic<int> seen{0};
    Results results;
    Job job = problem.job(results, 1);
    const auto added = job.added;
    job.added = [&](auto... arguments) {
      seen += std::fegetround() == mode && denormals_count();
      added(arguments...);
    };
    sweep(job);
    const bool kept = std::fegetround() == mode && denormals_count();
    job.added = [](auto...) { throw Stop(); };
    try {
      sweep(job);
    } catch (const Stop&) {
    }
    const bool kept_then = std::fegetround() == mode && denormals_count();
    const bool same = without_callback.sweep(2) == right;
    std::fesetround(FE_TONEAREST);
    require(seen > 0 && kept, "a sweep changes the caller's rounding or denormals");
    require(kept_then, "a sweep that is stopped changes the caller's rounding or denormals");
    require(same, "the caller's rounding changes a result");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string word = argc > 1 ? argv[1] : "all";
  amount = word == "quick" ? Amount::quick : word == "threads" ? Amount::threads : Amount::all;
  const std::vector<std::pair<const char*, void (*)()>> families = {{"shapes", shapes},
                                                                    {"groups of heads", groups},
                                                                    {"dtypes and gaps", dtypes_and_gaps},
                                                                    {"spans", spans},
                                                                    {"soft caps and sinks", caps_and_sinks},
                                                                    {"top", tops},
                                                                    {"cells", cells},
                                                                    {"long rows", long_rows},
                                                                    {"threads", threads},
                                                                    {"exceptions", exceptions},
                                                                    {"interrupts", interrupts},
                                                                    {"too little memory", too_little_memory},
                                                                    {"floating-point environment", float_environment}};
  bool failed = false;
  for (const auto& [name, run] : families) {
    if (amount == Amount::threads && run != threads && run != exceptions && run != interrupts) continue;
    checked = 0;
    try {
      run();
      std::printf("%-28s %4d checks\n", name, checked);
    } catch (const std::exception& error) {
      std::printf("%-28s FAILED: %s\n", name, error.what());
      failed = true;
    }
    std::fflush(stdout);
  }
  return failed;
}
