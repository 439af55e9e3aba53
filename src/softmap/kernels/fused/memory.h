// Memory for vectors: aligned to cache lines, and large pieces to large pages, of which a strip's scores touch many.
//
// A little memory is kept from one sweep to the next. What an allocator has returned to the system comes back page by
// page as it is first touched, which shows where a sweep is short.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)  // which looks at what an allocator gives
#include <sys/mman.h>
#define SOFTMAP_MAPS
#endif

class Memory {
 public:
  static constexpr size_t LINE = 64, LARGE_PAGE = size_t(2) << 20;

 private:
  struct Piece {
    void* data;
    size_t bytes;
  };
  static constexpr size_t LIMIT = size_t(32) << 20;  // kept at most
  std::mutex lock;
  std::vector<Piece> kept;
  size_t kept_bytes = 0;

  static Memory& shared() {
    static Memory* memory = made();
    return *memory;
  }

  static Memory* made() {
    static Memory* memory = nullptr;  // never destroyed: threads may outlive static objects
    memory = new Memory;
#if defined(__unix__) || defined(__APPLE__)
    // A fork waits for who is in here: in the child, a lock that another thread held would stay held.
    const auto leave = [] { memory->lock.unlock(); };
    pthread_atfork([] { memory->lock.lock(); }, leave, leave);
#endif
    return memory;
  }

  // From the system; null where it has no more. Large pieces get pages of their own: those that an allocator hands out
  // anew have been cut into small ones.
  static void* acquire(size_t bytes) {
#if defined(SOFTMAP_MAPS)
    if (bytes % LARGE_PAGE == 0) {
      const int access = PROT_READ | PROT_WRITE, kind = MAP_PRIVATE | MAP_ANONYMOUS;
      void* whole = mmap(nullptr, bytes + LARGE_PAGE, access, kind, -1, 0);  // an aligned piece lies within
      if (whole == MAP_FAILED) return nullptr;
      char* const begin = static_cast<char*>(whole);
      char* const data = begin + (LARGE_PAGE - uintptr_t(begin) % LARGE_PAGE) % LARGE_PAGE;
      if (data > begin) munmap(begin, size_t(data - begin));
      munmap(data + bytes, LARGE_PAGE - size_t(data - begin));
      madvise(data, bytes, MADV_HUGEPAGE);
      return data;
    }
#endif
    return std::aligned_alloc(LINE, bytes);
  }

  static void release(const Piece& piece) {
#if defined(SOFTMAP_MAPS)
    if (piece.bytes % LARGE_PAGE == 0) {
      munmap(piece.data, piece.bytes);
      return;
    }
#endif
    std::free(piece.data);
  }

  void* find(size_t bytes) {
    const std::lock_guard<std::mutex> guard(lock);
    for (Piece& piece : kept)
      if (piece.bytes == bytes) {
        void* data = piece.data;
        piece = kept.back();
        kept.pop_back();
        kept_bytes -= bytes;
        return data;
      }
    return nullptr;
  }

 public:
  // Whole lines, not initialised.
  static void* take(size_t bytes) {
    void* data = shared().find(bytes);
    if (!data) data = acquire(bytes);
    if (!data) throw std::bad_alloc();
    return data;
  }

  static void give_back(void* data, size_t bytes) noexcept {
    Memory& memory = shared();
    const std::lock_guard<std::mutex> guard(memory.lock);
    while (bytes <= LIMIT && memory.kept_bytes + bytes > LIMIT) {  // sizes that do not come again make room
      release(memory.kept.front());
      memory.kept_bytes -= memory.kept.front().bytes;
      memory.kept.erase(memory.kept.begin());
    }
    if (memory.kept_bytes + bytes <= LIMIT) try {
        memory.kept.push_back({data, bytes});
        memory.kept_bytes += bytes;
        return;
      } catch (const std::bad_alloc&) {
      }
    release({data, bytes});
  }
};

template <class T>
class Buffer {
  T* data_ = nullptr;
  size_t size_ = 0, bytes_ = 0;

  void release() {
    if (data_) Memory::give_back(data_, bytes_);
    data_ = nullptr, size_ = 0;
  }

 public:
  Buffer() = default;
  explicit Buffer(size_t size) { resize(size); }
  ~Buffer() { release(); }
  Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_), bytes_(other.bytes_) {
    other.data_ = nullptr, other.size_ = 0;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  // Room for `size` elements, not initialised; what was there before is gone.
  void resize(size_t size) {
    release();
    if (size == 0) return;
    if (size > (size_t(-1) >> 1) / sizeof(T)) throw std::bad_alloc();
    const size_t bytes = size * sizeof(T);
    const size_t step = bytes >= Memory::LARGE_PAGE / 2 ? Memory::LARGE_PAGE : Memory::LINE;
    bytes_ = (bytes + step - 1) / step * step;
    data_ = static_cast<T*>(Memory::take(bytes_));
    size_ = size;
  }
  size_t size() const { return size_; }
  operator T*() { return data_; }
  operator const T*() const { return data_; }
};
