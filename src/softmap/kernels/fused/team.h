// A few threads that share tasks; the calling thread is one of them, and looks for interrupts between its tasks.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

class Team {
  const int threads;
  const std::function<void()>& check_interrupt;
  std::chrono::steady_clock::time_point last_check = std::chrono::steady_clock::now();

  void check_now_and_then() {
    constexpr auto interval = std::chrono::milliseconds(50);  // a person does not notice; taking Python's lock costs little
    const auto now = std::chrono::steady_clock::now();
    if (!check_interrupt || now - last_check < interval) return;
    last_check = now;
    check_interrupt();
  }

 public:
  Team(int threads, const std::function<void()>& check_interrupt)
      : threads(threads > 0 ? threads : 1), check_interrupt(check_interrupt) {}
  int size() const { return threads; }

  // Calls f(task, member) for each task once, in rising order, from whichever member is free. When one throws, no new
  // task is begun, and the first exception comes out here once all have stopped.
  template <class F>
  void each(int64_t tasks, const F& f) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> stopped{false};
    std::exception_ptr first;
    std::mutex first_lock;
    const auto work = [&](int member) {
      try {
        for (int64_t task; !stopped && (task = next++) < tasks;) {
          if (member == 0) check_now_and_then();
          f(task, member);
        }
      } catch (...) {
        const std::lock_guard<std::mutex> guard(first_lock);
        if (!first) first = std::current_exception();
        stopped = true;
      }
    };
    std::vector<std::thread> others;
    const int helpers = int(std::min<int64_t>(threads, tasks)) - 1;
    try {
      for (int i = 1; i <= helpers; i++) others.emplace_back(work, i);
    } catch (const std::system_error&) {  // no more threads to be had: those that are there do it
    }
    work(0);
    for (std::thread& thread : others) thread.join();
    if (first) std::rethrow_exception(first);
  }
};
