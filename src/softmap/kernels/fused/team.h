// A few threads that share tasks; the calling thread is one of them, and looks for interrupts within its tasks and
// while it waits for the others.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

class Team {
  static constexpr auto INTERVAL =
      std::chrono::milliseconds(50);  // a person does not notice; Python's lock costs little
  struct Stopped {};
  const int threads;
  const std::function<void()>& check_interrupt;
  std::chrono::steady_clock::time_point last_check = std::chrono::steady_clock::now();
  std::atomic<bool> stopped{false};
  std::mutex lock;  // of what follows
  std::condition_variable left;
  int helping = 0;
  std::exception_ptr first;

  void check_now_and_then() {
    const auto now = std::chrono::steady_clock::now();
    if (!check_interrupt || now - last_check < INTERVAL) return;
    last_check = now;
    check_interrupt();
  }

  // Whoever throws stops all.
  template <class F>
  void guarded(const F& f) {
    try {
      f();
    } catch (...) {
      const std::lock_guard<std::mutex> guard(lock);
      if (!first) first = std::current_exception();
      stopped = true;
    }
  }

  bool alone_within(std::chrono::milliseconds time) {
    std::unique_lock<std::mutex> guard(lock);
    return left.wait_for(guard, time, [&] { return helping == 0; });
  }

 public:
  Team(int threads, const std::function<void()>& check_interrupt)
      : threads(threads > 0 ? threads : 1), check_interrupt(check_interrupt) {}
  int size() const { return threads; }

  // To be called every few milliseconds of a task: throws where it is not to go on.
  void checkpoint(int member) {
    if (member == 0) check_now_and_then();
    if (stopped) throw Stopped();  // the reason is kept by then
  }

  // Calls f(task, member) for each task once, in rising order, from whichever member is free. When one throws, all stop
  // at their next checkpoint, and the first exception comes out here.
  template <class F>
  void each(int64_t tasks, const F& f) {
    std::atomic<int64_t> next{0};
    const auto work = [&](int member) {
      guarded([&] {
        for (int64_t task; (task = next++) < tasks;) {
          checkpoint(member);
          f(task, member);
        }
      });
    };
    const auto help = [&](int member) {
      work(member);
      const std::lock_guard<std::mutex> guard(lock);
      if (--helping == 0) left.notify_one();
    };
    std::vector<std::thread> others;
    const int helpers = int(std::min<int64_t>(threads, tasks)) - 1;
    helping = helpers;
    try {
      for (int i = 1; i <= helpers; i++) others.emplace_back(help, i);
    } catch (const std::exception&) {  // no more threads, or no memory for one: those that are there do it
      const std::lock_guard<std::mutex> guard(lock);
      helping -= helpers - int(others.size());
    }
    work(0);
    while (!alone_within(INTERVAL)) guarded([&] { check_now_and_then(); });
    for (std::thread& thread : others) thread.join();
    if (first) std::rethrow_exception(first);
  }
};
