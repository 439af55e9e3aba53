// Memory for vectors: aligned to cache lines, and large pieces to large pages, of which a strip's scores touch many.
#pragma once
#include <cstdlib>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

template <class T>
class Buffer {
  T* data_ = nullptr;
  size_t size_ = 0;

 public:
  Buffer() = default;
  explicit Buffer(size_t size) { resize(size); }
  ~Buffer() { std::free(data_); }
  Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_) { other.data_ = nullptr, other.size_ = 0; }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  // Room for `size` elements, not initialised; what was there before is gone.
  void resize(size_t size) {
    constexpr size_t line = 64, page = size_t(2) << 20;
    std::free(data_);
    data_ = nullptr, size_ = 0;
    if (size > (size_t(-1) >> 1) / sizeof(T)) throw std::bad_alloc();
    size_t bytes = size * sizeof(T);
    const size_t alignment = bytes >= 2 * page ? page : line;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    data_ = static_cast<T*>(std::aligned_alloc(alignment, bytes ? bytes : alignment));
    if (!data_) throw std::bad_alloc();
#if defined(__linux__)
    if (alignment == page) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
    size_ = size;
  }
  size_t size() const { return size_; }
  operator T*() { return data_; }
  operator const T*() const { return data_; }
};
