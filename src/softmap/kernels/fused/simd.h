// One vector of floats, as wide as the instruction set this file is compiled for.
//
// The compiler's own vector types (GCC, Clang) carry the arithmetic, so that one source serves AVX-512, AVX2, SSE2 and
// NEON. Intrinsics stand only where the types have no word for it: a maximum in one instruction, and lanes to bits.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define SOFTMAP_INLINE_MEMBER inline __attribute__((always_inline))
#define SOFTMAP_INLINE static inline __attribute__((always_inline))
// Loops over registers must unroll fully, or the registers become memory.
#if defined(__clang__)
#define SOFTMAP_UNROLL _Pragma("unroll")
#define SOFTMAP_UNROLL_4 _Pragma("unroll 4")
#else
#define SOFTMAP_UNROLL _Pragma("GCC unroll 64")
#define SOFTMAP_UNROLL_4 _Pragma("GCC unroll 4")
#endif

// The lanes of two vectors of four in another order. GCC has Clang's word for it since version 12.
#if defined(__clang__) || __GNUC__ >= 12
#define SOFTMAP_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t FourLanes __attribute__((vector_size(16)));
#define SOFTMAP_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, FourLanes{__VA_ARGS__})
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int32_t IntVec __attribute__((vector_size(LANES * 4)));

SOFTMAP_INLINE Vec load(const float* from) {
  Vec v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
SOFTMAP_INLINE void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }
SOFTMAP_INLINE Vec splat(float x) { return x - Vec{}; }

// A lane's own number: 0, 1, 2, ...
SOFTMAP_INLINE Vec lane_numbers() {
  Vec v;
  SOFTMAP_UNROLL for (int i = 0; i < LANES; i++) v[i] = float(i);
  return v;
}

SOFTMAP_INLINE Vec larger(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (Vec)_mm_max_ps((__m128)a, (__m128)b);
#elif defined(__ARM_NEON)
  return (Vec)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
#else
  return a > b ? a : b;
#endif
}

// Bit i is set where lane i of a is at least that of b.
SOFTMAP_INLINE uint32_t at_least(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ);
#elif defined(__AVX__)
  return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GE_OQ)));
#elif defined(__SSE2__)
  return uint32_t(_mm_movemask_ps(_mm_cmpge_ps((__m128)a, (__m128)b)));
#else
  const IntVec is = a >= b;
  uint32_t bits = 0;
  for (int i = 0; i < LANES; i++) bits |= uint32_t(is[i] & 1) << i;
  return bits;
#endif
}

SOFTMAP_INLINE float sum_of(Vec v) {
  float x[LANES];
  store(x, v);
  SOFTMAP_UNROLL for (int half = LANES / 2; half > 0; half /= 2) SOFTMAP_UNROLL for (int i = 0; i < half; i++) x[i] +=
      x[i + half];
  return x[0];
}
SOFTMAP_INLINE float largest_of(Vec v) {
  float x[LANES];
  store(x, v);
  SOFTMAP_UNROLL for (int half = LANES / 2; half > 0; half /= 2) SOFTMAP_UNROLL for (int i = 0; i < half; i++) x[i] =
      x[i] > x[i + half] ? x[i] : x[i + half];
  return x[0];
}

SOFTMAP_INLINE void prefetch(const float* at) { __builtin_prefetch(at, 0, 2); }  // into L2

// Denormals flushed to zero, rounding to nearest, in this scope only; then the caller's environment again.
// Weights below 2^-126 are 0 to float rounding, and as denormals they would be slow.
class FloatScope {
#if defined(__SSE2__)
  unsigned saved = _mm_getcsr();

 public:
  FloatScope() { _mm_setcsr(0x9FC0); }  // flush to zero, denormals are zero, all exceptions masked
  ~FloatScope() { _mm_setcsr(saved); }
#elif defined(__aarch64__)
  uint64_t saved;

 public:
  FloatScope() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" ::"r"(uint64_t(1) << 24));  // FZ
  }
  ~FloatScope() { __asm__ volatile("msr fpcr, %0" ::"r"(saved)); }
#else
 public:
  FloatScope() {}
#endif
  FloatScope(const FloatScope&) = delete;
  FloatScope& operator=(const FloatScope&) = delete;
};
