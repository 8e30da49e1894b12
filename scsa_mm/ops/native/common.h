// What the loops have in common: the dtypes as the caller numbers them, and memory.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace scsa_mm {

// The numbers are those of DTYPES in calls.py.
enum Dtype { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };

struct BFloat16 {
  uint16_t bits;
  operator float() const {
    uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  }
  BFloat16() = default;
  BFloat16(float value) {  // to nearest, ties to even
    uint32_t wide;
    std::memcpy(&wide, &value, sizeof wide);
    const uint32_t rounded = (wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16;
    bits = static_cast<uint16_t>((wide & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);  // NaN stays NaN
  }
};

#if defined(__FLT16_MAX__)
using Float16 = _Float16;
#define SCSA_MM_HAS_FLOAT16 1
#endif

// The type of sums: double for double, float for all narrower ones.
template <typename T>
struct Sum {
  using type = float;
};
template <>
struct Sum<double> {
  using type = double;
};

// Calls `run` with a null pointer to the type that the number stands for.
template <typename F>
void for_dtype(int64_t dtype, F run) {
  switch (dtype) {
    case kFloat32: return run(static_cast<float*>(nullptr));
    case kFloat64: return run(static_cast<double*>(nullptr));
    case kBFloat16: return run(static_cast<BFloat16*>(nullptr));
#if defined(SCSA_MM_HAS_FLOAT16)
    case kFloat16: return run(static_cast<Float16*>(nullptr));
#endif
  }
}

// e^x: the power of two next to it times the Taylor polynomial of the rest, in a form that compilers vectorise.
// Relative error below 2e-7; beyond the range of float it stays finite and positive, and NaN stays NaN.
inline float exp_of(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float n = std::nearbyint(x * 1.44269504f);
  const float high = 0.69314575f, low = 1.4286068e-6f;  // ln 2 = high + low, n * high without rounding
  const float r = (x - n * high) - n * low;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const uint32_t power = (static_cast<uint32_t>(static_cast<int32_t>(n)) + 127u) << 23;
  float scale;
  std::memcpy(&scale, &power, sizeof scale);
  return p * scale;
}
inline double exp_of(double x) { return std::exp(x); }

}  // namespace scsa_mm
