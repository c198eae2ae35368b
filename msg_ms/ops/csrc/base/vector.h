// Short float vectors (GCC and Clang vector extensions, so any CPU), and the elementary functions that the kernels
// need.
//
// Guarantee: a NaN stays a NaN. The error bounds of exp, CDF and PDF are stated at each function.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

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

// Shuffle vectors a and b: lane i is lane Order::from(i) of a, or lane Order::from(i) - kLanes of b. The order is a
// constant of the program, so that compilers choose the cheapest instruction.
template <typename Order, int... lane>
MSG_MS_INLINE inline Vec shuffle(Vec a, Vec b, std::integer_sequence<int, lane...>) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, Order::from(lane)...);
#else
  return __builtin_shuffle(a, b, IntVec{Order::from(lane)...});
#endif
}

template <typename Order>
MSG_MS_INLINE inline Vec shuffle(Vec a, Vec b) {
  return shuffle<Order>(a, b, std::make_integer_sequence<int, kLanes>());
}

// Exchange the halves of every `2 * half` lanes.
template <int half>
struct ExchangedHalves {
  static constexpr int from(int i) { return i ^ half; }
};

// Reduce the lanes pairwise, halving their number at each step.
template <int half = kLanes / 2, typename Combine>
inline float reduce_lanes(Vec v, Combine combine) {
  v = combine(v, shuffle<ExchangedHalves<half>>(v, v));
  if constexpr (half > 1) return reduce_lanes<half / 2>(v, combine);
  return v[0];
}

inline float horizontal_sum(Vec v) {
  return reduce_lanes(v, [](Vec a, Vec b) { return a + b; });
}

inline float horizontal_max(Vec v) {
  return reduce_lanes(v, [](Vec a, Vec b) { return a > b ? a : b; });
}

// In every four lanes, the first (or last) half of a and that of b, interleaved in pieces of `size` lanes.
template <int size, bool last>
struct Interleaved {
  static constexpr int from(int i) {
    const int piece = i % 4 / size, lane = i / 4 * 4 + (last ? 2 : 0) + piece / 2 * size + i % size;
    return piece % 2 == 0 ? lane : kLanes + lane;
  }
};

// Those of all the fours of lanes in a and b that have even (or odd) numbers.
template <bool odd>
struct EverySecondFour {
  static constexpr int from(int i) { return (i / 4 * 2 + odd) * 4 + i % 4; }
};

// Transpose a square of kLanes x kLanes floats: first the squares of 4 x 4 floats, then the fours of lanes.
inline void transpose(Vec (&rows)[kLanes]) {
  Vec columns[kLanes];
#pragma GCC unroll 4
  for (int i = 0; i < kLanes; i += 4) {
    const Vec first = shuffle<Interleaved<1, false>>(rows[i], rows[i + 1]);
    const Vec second = shuffle<Interleaved<1, true>>(rows[i], rows[i + 1]);
    const Vec third = shuffle<Interleaved<1, false>>(rows[i + 2], rows[i + 3]);
    const Vec fourth = shuffle<Interleaved<1, true>>(rows[i + 2], rows[i + 3]);
    columns[i] = shuffle<Interleaved<2, false>>(first, third);
    columns[i + 1] = shuffle<Interleaved<2, true>>(first, third);
    columns[i + 2] = shuffle<Interleaved<2, false>>(second, fourth);
    columns[i + 3] = shuffle<Interleaved<2, true>>(second, fourth);
  }
  constexpr int kFours = kLanes / 4;
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    Vec fours[kFours];
    for (int i = 0; i < kFours; ++i) fours[i] = columns[4 * i + c];
#pragma GCC unroll 4
    for (int step = 1; step < kFours; step *= 2) {
      Vec next[kFours];
#pragma GCC unroll 4
      for (int i = 0; i < kFours / 2; ++i) {
        next[i] = shuffle<EverySecondFour<false>>(fours[2 * i], fours[2 * i + 1]);
        next[i + kFours / 2] = shuffle<EverySecondFour<true>>(fours[2 * i], fours[2 * i + 1]);
      }
#pragma GCC unroll 4
      for (int i = 0; i < kFours; ++i) fours[i] = next[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < kFours; ++i) rows[4 * i + c] = fours[i];
  }
}

// exp(x) for x <= 0, relative error 1e-7. Inputs below -87 (the end of the float range) are clamped to -87.
inline Vec exp_nonpositive(Vec x) {
  x = -87.0f > x ? Vec{} - 87.0f : x;
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
  const Vec from_below = -kEnd > x ? Vec{} - kEnd : x, inside = kEnd < from_below ? Vec{} + kEnd : from_below;
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
