// Short float vectors (GCC and Clang vector extensions, so any CPU), and the elementary functions that the kernels need.
//
// Guarantee: a NaN stays a NaN. The error bounds of exp, CDF and PDF are stated at each function.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

namespace msg_ms {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// Functions that receive vectors of a tile must be inlined; a call would spill them to memory.
#define MSG_MS_INLINE __attribute__((always_inline))

using Vec = float __attribute__((vector_size(kLanes * 4)));
using IntVec = int32_t __attribute__((vector_size(kLanes * 4)));

inline Vec load(const float *p) {
  Vec v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

inline void store(float *p, Vec v) { std::memcpy(p, &v, sizeof(v)); }

// Load the first n (fewer than kLanes) elements and fill the other lanes with zeros.
inline Vec load_partial(const float *p, int64_t n) {
  Vec v{};
  std::memcpy(&v, p, n * sizeof(float));
  return v;
}

inline void store_partial(float *p, Vec v, int64_t n) { std::memcpy(p, &v, n * sizeof(float)); }

// Load or store n lanes, 1 <= n <= kLanes.
inline Vec load_lanes(const float *p, int64_t n) { return n == kLanes ? load(p) : load_partial(p, n); }

inline void store_lanes(float *p, Vec v, int64_t n) { n == kLanes ? store(p, v) : store_partial(p, v, n); }

// Call body(first, count) for each vector of a row of n floats: whole vectors, then the remainder.
template <typename Body>
inline void for_each_vector(int64_t n, const Body &body) {
  int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes) body(c, int64_t{kLanes});
  if (c < n) body(c, n - c);
}

// Prefetch n floats. The hardware prefetcher misses short pieces that are far apart. `written`: they will be modified.
template <bool written = false>
inline void prefetch(const float *p, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) __builtin_prefetch(p + i, written);
}

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Lane indices of a shuffle of vectors a and b: lane i is lane from(i) of a, or lane from(i) - kLanes of b.
template <typename From>
constexpr std::array<int32_t, kLanes> lane_table(From from) {
  std::array<int32_t, kLanes> lanes{};
  for (int i = 0; i < kLanes; ++i) lanes[i] = from(i);
  return lanes;
}

inline Vec shuffle(Vec a, Vec b, const std::array<int32_t, kLanes> &lanes) {
  IntVec indices;
  std::memcpy(&indices, lanes.data(), sizeof(indices));
#ifdef __clang__
  Vec result;
  for (int i = 0; i < kLanes; ++i) result[i] = indices[i] < kLanes ? a[indices[i]] : b[indices[i] - kLanes];
  return result;
#else
  return __builtin_shuffle(a, b, indices);
#endif
}

// Reduce the lanes pairwise, halving their number at each step.
template <int half = kLanes / 2, typename Combine>
inline float reduce_lanes(Vec v, Combine combine) {
  static constexpr auto other = lane_table([](int i) { return i ^ half; });
  v = combine(v, shuffle(v, v, other));
  if constexpr (half > 1) return reduce_lanes<half / 2>(v, combine);
  return v[0];
}

inline float horizontal_sum(Vec v) {
  return reduce_lanes(v, [](Vec a, Vec b) { return a + b; });
}

inline float horizontal_max(Vec v) {
  return reduce_lanes(v, [](Vec a, Vec b) { return a > b ? a : b; });
}

// Transpose a square of kLanes x kLanes floats: swap the off-diagonal blocks of ever smaller squares.
template <int half = kLanes / 2>
inline void transpose(Vec (&rows)[kLanes]) {
  static constexpr auto upper = lane_table([](int i) { return i & half ? kLanes + i - half : i; });
  static constexpr auto lower = lane_table([](int i) { return i & half ? kLanes + i : i + half; });
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (i & half) continue;
    const Vec a = rows[i], b = rows[i + half];
    rows[i] = shuffle(a, b, upper);
    rows[i + half] = shuffle(a, b, lower);
  }
  if constexpr (half > 1) transpose<half / 2>(rows);
}

// exp(x) for x <= 0, relative error 1e-7. Inputs below -87 (the end of the float range) are clamped to -87.
inline Vec exp_nonpositive(Vec x) {
  x = x < -87.0f ? Vec{} - 87.0f : x;
  // Adding 1.5 * 2^23 puts the nearest integer to x / ln 2 into the low bits.
  const Vec shifted = x * 1.44269504088896341f + 12582912.0f;
  const Vec whole = shifted - 12582912.0f;
  const Vec r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * (Vec)(((IntVec)shifted << 23) + (127 << 23));
}

// The CDF of the standard normal distribution, absolute error 1.2e-7: 1/2 + x p(t) with t = 2 (x / 5.5)^2 - 1. The
// polynomial p was fitted in single precision for |x| <= 5.5. Beyond, the result is 0 or 1.
inline Vec normal_cdf(Vec x) {
  constexpr float kEnd = 5.5f;
  const Vec inside = x < -kEnd ? Vec{} - kEnd : x > kEnd ? Vec{} + kEnd : x;
  const Vec t = inside * inside * (2 / (kEnd * kEnd)) - 1.0f;
  Vec p = t * -0.000226681237f + 0.000626757159f;
  p = p * t - 0.000563254056f;
  p = p * t + 0.0007357219f;
  p = p * t - 0.00237105438f;
  p = p * t + 0.00460194843f;
  p = p * t - 0.00685352413f;
  p = p * t + 0.0102402307f;
  p = p * t - 0.0149864499f;
  p = p * t + 0.020360617f;
  p = p * t - 0.0260506757f;
  p = p * t + 0.0320708528f;
  p = p * t - 0.0387925841f;
  p = p * t + 0.0477375947f;
  p = p * t - 0.0641723424f;
  p = p * t + 0.12855193f;
  const Vec result = inside * p + 0.5f;
  return x < -kEnd ? Vec{} : x > kEnd ? Vec{} + 1.0f : result;
}

// The PDF of the standard normal distribution.
inline Vec normal_pdf(Vec x) { return exp_nonpositive(x * x * -0.5f) * 0.398942280401433f; }

}  // namespace msg_ms
