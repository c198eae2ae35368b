// The arithmetic of the GEMM micro-kernel in 16-bit integers: products of numbers of 15 bits, summed in 32 bits.
//
// Operands are rows of whole numbers with one scale each, in pairs as in micro_kernel_bfloat16.h. For rows of bounded
// norm the sum is exact: no partial sum exceeds the product of the two norms (Cauchy and Schwarz), which is below 2^31.
// Its rounding errors are 5 times smaller than bfloat16's, at the same speed. It suits operands that a transform has
// mixed, as all numbers of a row have about the same size then.
//
// NativeInt16 has an instruction of AVX512-VNNI. PortableInt16 computes the same bits on any processor.
#pragma once

#include <cmath>

#include "gemm/micro_kernel_bfloat16.h"

namespace msg_ms {

using Int16 = int16_t __attribute__((may_alias));
using Int16Vec = int16_t __attribute__((vector_size(kLanes * 2)));

struct PortableInt16 {
  static MSG_MS_INLINE inline void multiply_add(Vec &tile, float a, Vec b) {
    int32_t pair;
    std::memcpy(&pair, &a, sizeof(pair));
    const IntVec pairs = (IntVec)b, first = pairs << 16 >> 16, second = pairs >> 16;
    // Without sign, as the rows of a NaN have no bound.
    const UIntVec sum = (UIntVec)(first * (int32_t(uint32_t(pair) << 16) >> 16)) + (UIntVec)(second * (pair >> 16));
    tile = (Vec)((UIntVec)tile + sum);
  }
};

#if MSG_MS_BFLOAT16
struct NativeInt16 {
  static MSG_MS_INLINE inline void multiply_add(Vec &tile, float a, Vec b) {
    // The intrinsic has a tile of integers, and GCC copies registers to convert it.
    asm("vpdpwssd %2, %1, %0" : "+v"(tile) : "v"(_mm512_set1_ps(a)), "v"(b));
  }
};

using Int16Arithmetic = NativeInt16;
#else
using Int16Arithmetic = PortableInt16;
#endif

// Round v * factor, at most 32767 in magnitude, to the nearest whole number.
MSG_MS_INLINE inline Int16Vec round_to_int16(Vec v, float factor) {
  // Adding 1.5 * 2^23 puts the nearest integer into the low bits.
  return __builtin_convertvector((IntVec)(v * factor + 12582912.0f), Int16Vec);
}

// The largest norms of a row on the left and of a column on the right, before rounding: a bound of the rounding's own
// norm is subtracted.
inline float row_norm_limit(int64_t depth) { return 32767.0f - std::sqrt(static_cast<float>(depth)); }
inline float column_norm_limit(int64_t depth) { return 65535.0f - std::sqrt(static_cast<float>(depth)); }

// The factor that makes numbers whole, and its inverse: both 0 for zeros, NaN for an infinite norm or a NaN.
struct Scale {
  float factor, inverse;

  // `norm` becomes `limit`.
  Scale(float norm, float limit) : factor(limit / norm), inverse(norm / limit) {
    if (norm == 0.0f) factor = inverse = 0.0f;
    if (!std::isfinite(norm)) factor = inverse = NAN;
  }
};

}  // namespace msg_ms
