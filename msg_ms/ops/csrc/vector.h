// Short vectors of floats as GCC and Clang offer them on every CPU, and the two functions that the kernels need of them.
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

using Vec = float __attribute__((vector_size(kLanes * 4)));
using IntVec = int32_t __attribute__((vector_size(kLanes * 4)));

inline Vec load(const float *p) {
  Vec v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

inline void store(float *p, Vec v) { std::memcpy(p, &v, sizeof(v)); }

// The first n (fewer than kLanes) elements, zeros behind them.
inline Vec load_part(const float *p, int64_t n) {
  Vec v{};
  std::memcpy(&v, p, n * sizeof(float));
  return v;
}

inline void store_part(float *p, Vec v, int64_t n) { std::memcpy(p, &v, n * sizeof(float)); }

inline Vec load_lanes(const float *p, int64_t n) { return n == kLanes ? load(p) : load_part(p, n); }

inline void store_lanes(float *p, Vec v, int64_t n) { n == kLanes ? store(p, v) : store_part(p, v, n); }

// Calls use(first, count) for a row of n floats: whole vectors, then what is left.
template <typename Use>
inline void for_each_vector(int64_t n, const Use &use) {
  int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes) use(c, int64_t{kLanes});
  if (c < n) use(c, n - c);
}

// Asks for n numbers that are needed soon: what kernels take in short pieces far apart, the processor doesn't fetch ahead
// by itself. `written`: they will be changed.
template <bool written = false>
inline void fetch(const float *p, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) __builtin_prefetch(p + i, written);
}

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Lanes of two vectors chosen at compile time: lane i is lane from(i) of a, or from(i) - kLanes of b.
template <typename From>
constexpr std::array<int32_t, kLanes> lane_table(From from) {
  std::array<int32_t, kLanes> lanes{};
  for (int i = 0; i < kLanes; ++i) lanes[i] = from(i);
  return lanes;
}

inline Vec shuffle(Vec a, Vec b, const std::array<int32_t, kLanes> &lanes) {
  IntVec chosen;
  std::memcpy(&chosen, lanes.data(), sizeof(chosen));
#ifdef __clang__
  Vec result;
  for (int i = 0; i < kLanes; ++i) result[i] = chosen[i] < kLanes ? a[chosen[i]] : b[chosen[i] - kLanes];
  return result;
#else
  return __builtin_shuffle(a, b, chosen);
#endif
}

// Folds the lanes in halves, so that sums are taken pairwise.
template <int half = kLanes / 2, typename Combine>
inline float fold(Vec v, Combine combine) {
  static constexpr auto other = lane_table([](int i) { return i ^ half; });
  v = combine(v, shuffle(v, v, other));
  if constexpr (half > 1) return fold<half / 2>(v, combine);
  return v[0];
}

inline float sum(Vec v) {
  return fold(v, [](Vec a, Vec b) { return a + b; });
}

inline float max(Vec v) {
  return fold(v, [](Vec a, Vec b) { return a > b ? a : b; });
}

// Rows become columns: exchanges the off-diagonal blocks of ever smaller squares.
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

// e^x to 1e-7 relative for x <= 0; below -87, where floats end, as for -87. A NaN stays one.
inline Vec exp_of_negative(Vec x) {
  x = x < -87.0f ? Vec{} - 87.0f : x;
  // The nearest integer to x / ln 2 ends up in the low bits of a sum with 1.5 * 2^23.
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

// The normal distribution function of x, to 1.2e-7: 1/2 + x p(x^2), with a polynomial of 2 (x / 5.5)^2 - 1 fitted to it in
// single precision up to 5.5, past which it is 0 or 1. A NaN stays one.
inline Vec normal_distribution(Vec x) {
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

inline Vec normal_density(Vec x) { return exp_of_negative(x * x * -0.5f) * 0.398942280401433f; }

}  // namespace msg_ms
