// GELU, x times the CDF of the standard normal distribution at x, from tables of polynomials.
//
// GELU(x) = max(x, 0) - h(|x|) with h(a) = a times the CDF at -a. h is a polynomial in each of 32 intervals: as many
// coefficients of one power as two vectors of AVX-512 hold, so that an instruction looks them up for all lanes.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/vector.h"

namespace msg_ms {

constexpr int kTableSize = 32;
using Table = float[kTableSize];

// The polynomials of degree kDegree in a or, if `centered`, in a minus the middle of the interval. Interval i has the
// middle i / per_unit. Beyond `end`, in the last interval, h counts as constant.
template <int kDegree, bool centered>
struct PolynomialsOfGelu {
  const float per_unit, end;
  alignas(64) Table coefficients[kDegree + 1];

  explicit PolynomialsOfGelu(float intervals_per_unit)
      : per_unit(intervals_per_unit), end((kTableSize - 0.51f) / intervals_per_unit) {
    for (int i = 0; i < kTableSize; ++i) {
      const double middle = i / static_cast<double>(per_unit), half = 0.5 / per_unit;
      interpolate(std::max(0.0, middle - half), middle + half, centered ? middle : 0.0, i == 0, i);
    }
  }

  // Return the interval of each entry of a, which is in the low bits, and subtract the middle from a if `centered`.
  MSG_MS_INLINE IntVec select(Vec &a) const {
    constexpr float kShift = 8388608.0f;  // 2^23
    const Vec shifted = a * per_unit + kShift;
    if (centered) a -= (shifted - kShift) * (1.0f / per_unit);
    return (IntVec)shifted;
  }

 private:
  // Interpolate h between `begin` and `end` at Chebyshev nodes by powers of a - origin. If `from_zero`, h(0) = 0 is one
  // of the nodes, so that the relative error near 0 is small.
  void interpolate(double begin, double end_of_interval, double origin, bool from_zero, int i) {
    constexpr int n = kDegree + 1;
    double nodes[n], differences[n];
    const int nodes_inside = from_zero ? n - 1 : n;
    for (int k = 0; k < n; ++k) {
      const double angle = 3.14159265358979324 * (k + 0.5) / nodes_inside;
      nodes[k] =
        k == nodes_inside ? 0.0 : (begin + end_of_interval) / 2 + (end_of_interval - begin) / 2 * std::cos(angle);
      differences[k] = nodes[k] * 0.5 * std::erfc(nodes[k] * std::sqrt(0.5));
    }
    for (int order = 1; order < n; ++order) {
      for (int k = n - 1; k >= order; --k) {
        differences[k] = (differences[k] - differences[k - 1]) / (nodes[k] - nodes[k - order]);
      }
    }
    // Newton's form, multiplied out.
    double powers[n] = {};
    for (int k = n - 1; k >= 0; --k) {
      for (int j = n - 1; j >= 0; --j) powers[j] = (j > 0 ? powers[j - 1] : 0.0) + (origin - nodes[k]) * powers[j];
      powers[0] += differences[k];
    }
    for (int k = 0; k < n; ++k) coefficients[k][i] = static_cast<float>(from_zero && k == 0 ? 0.0 : powers[k]);
  }
};

#if defined(__AVX512F__) && !defined(__clang__)
inline const PolynomialsOfGelu<4, true> kGelu(5.7f);

// Absolute error 2.4e-7, relative error 1.7e-7 for |x| < 1.
MSG_MS_INLINE inline Vec gelu(Vec x) {
  const Vec magnitude = (Vec)((IntVec)x & 0x7fffffff);
  Vec a = kGelu.end < magnitude ? Vec{} + kGelu.end : magnitude;
  const IntVec interval = kGelu.select(a);
  const auto coefficient = [&](int power) MSG_MS_INLINE {
    const float *table = kGelu.coefficients[power];
    return __builtin_shuffle(load(table), load(table + kLanes), interval);
  };
  Vec h = coefficient(4);
#pragma GCC unroll 4
  for (int power = 3; power >= 0; --power) h = h * a + coefficient(power);
  return (x + magnitude) * 0.5f - h;  // NaN for an infinity below 0, as in other implementations
}
#else
MSG_MS_INLINE inline Vec gelu(Vec x) { return x * normal_cdf(x); }
#endif

}  // namespace msg_ms
