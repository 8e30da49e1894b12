// Vectors of as many numbers as one instruction takes, for what compilers do not find by themselves.
#pragma once

#include <type_traits>
#include <utility>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "common.h"

namespace scsa_mm {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
template <typename A>
constexpr int64_t kLanes = kBytes / sizeof(A);

template <typename A>
struct VectorOf {
  typedef A type __attribute__((vector_size(kBytes)));
};
template <typename A>
using Vector = typename VectorOf<A>::type;

#define INLINE inline __attribute__((always_inline))

template <typename A>
INLINE Vector<A> load(const A* from) {
  Vector<A> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <typename A>
INLINE void store(A* to, Vector<A> v) {
  std::memcpy(to, &v, sizeof v);
}

// The sum of all lanes, halved again and again.
template <typename A, int Bytes = kBytes>
INLINE A sum_of(const A* lanes) {
  if constexpr (Bytes <= 16) {
    A sum = lanes[0];
    for (size_t i = 1; i < Bytes / sizeof(A); ++i) sum += lanes[i];
    return sum;
  } else {
    typedef A Half __attribute__((vector_size(Bytes / 2)));
    Half low, high;
    std::memcpy(&low, lanes, sizeof low);
    std::memcpy(&high, lanes + Bytes / 2 / sizeof(A), sizeof high);
    low += high;
    A rest[Bytes / 2 / sizeof(A)];
    std::memcpy(rest, &low, sizeof low);
    return sum_of<A, Bytes / 2>(rest);
  }
}

template <typename A>
INLINE A sum_of(Vector<A> v) {
  A lanes[kLanes<A>];
  std::memcpy(lanes, &v, sizeof v);
  return sum_of<A>(lanes);
}

template <typename A>
inline A dot(const A* a, const A* b, int64_t n) {
  Vector<A> sums[4] = {};
  int64_t j = 0;
  for (; j + 4 * kLanes<A> <= n; j += 4 * kLanes<A>)
    for (int64_t m = 0; m < 4; ++m) sums[m] += load(a + j + m * kLanes<A>) * load(b + j + m * kLanes<A>);
  for (; j + kLanes<A> <= n; j += kLanes<A>) sums[0] += load(a + j) * load(b + j);
  A rest = 0;
  for (; j < n; ++j) rest += a[j] * b[j];
  return sum_of<A>((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}

// The floats as exp_of() has them, in whole vectors.
INLINE Vector<float> sigmoid(Vector<float> z) {
  typedef int32_t Bits __attribute__((vector_size(kBytes)));
  const Vector<float> zero = {};
  Vector<float> x = -z;
  x = x < -87.0f ? zero - 87.0f : x;
  x = x > 88.0f ? zero + 88.0f : x;
  // Next to this number floats are whole numbers, and the last bits are those of n.
  const float whole = 12582912.0f;
  const Vector<float> sum = x * 1.44269504f + whole, n = sum - whole;
  const Vector<float> r = (x - n * 0.69314575f) - n * 1.4286068e-6f;
  Vector<float> p = zero + 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  Bits power;
  std::memcpy(&power, &sum, sizeof power);
  power = (power << 23) + (127 << 23);
  Vector<float> scale;
  std::memcpy(&scale, &power, sizeof scale);
  return 1.0f / (p * scale + 1.0f);
}

INLINE Vector<double> sigmoid(Vector<double> z) {
  for (int64_t j = 0; j < kLanes<double>; ++j) z[j] = 1 / (1 + std::exp(-z[j]));
  return z;
}

// n numbers of a map that follow each other, to the type of sums or from it.
template <typename From, typename To>
INLINE void convert(const From* from, To* to, int64_t n) {
  for (int64_t j = 0; j < n; ++j) to[j] = static_cast<To>(from[j]);
}

#if defined(SCSA_MM_HAS_FLOAT16) && defined(__F16C__)
// Compilers that have _Float16 do not all make vector loops of it.
INLINE void convert(const Float16* from, float* to, int64_t n) {
  int64_t j = 0;
  for (; j + 8 <= n; j += 8) {
    _mm256_storeu_ps(to + j, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + j))));
  }
  for (; j < n; ++j) to[j] = from[j];
}

INLINE void convert(const float* from, Float16* to, int64_t n) {
  int64_t j = 0;
  for (; j + 8 <= n; j += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from + j), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + j), half);
  }
  for (; j < n; ++j) to[j] = static_cast<Float16>(from[j]);
}
#endif

// Lanes of two vectors that follow each other, by number.
template <typename A, size_t... J>
INLINE Vector<A> shuffled(Vector<A> a, Vector<A> b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, J...);
#else
  typedef std::conditional_t<sizeof(A) == 4, int32_t, int64_t> Index;
  typedef Index Indices __attribute__((vector_size(kBytes)));
  return __builtin_shuffle(a, b, Indices{Index(J)...});
#endif
}

// The vector one place before or after `here` in a row.
template <typename A, size_t... J>
INLINE Vector<A> before(Vector<A> previous, Vector<A> here, std::index_sequence<J...>) {
  return shuffled<A, (sizeof...(J) - 1 + J)...>(previous, here);
}
template <typename A, size_t... J>
INLINE Vector<A> after(Vector<A> here, Vector<A> next, std::index_sequence<J...>) {
  return shuffled<A, (1 + J)...>(here, next);
}

}  // namespace scsa_mm
