// The arithmetic of the GEMM micro-kernel in bfloat16: products of bfloat16 numbers, summed in single precision.
//
// Operands are stored as pairs: the numbers k and k + 1 of the sum, the first in the low half of 32 bits. A pair has
// the place of a float in micro_kernel.h, so "depth" counts pairs there, and pairs travel in arrays of floats.
//
// NativeBFloat16 has the instructions of AVX512-BF16. PortableBFloat16 computes the same bits on any processor, slowly:
// it packs weights, and tests define MSG_MS_PORTABLE_BFLOAT16 to run all kernels with it.
//
// Guarantees: the sum adds the second number of a pair, then the first, each rounded to the nearest float. Numbers
// below 1.2e-38 count as zero, as those instructions have it. A NaN stays a NaN.
#pragma once

#include <array>

#include "base/gelu.h"
#include "gemm/micro_kernel.h"

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__) && !defined(MSG_MS_PORTABLE_BFLOAT16)
#include <immintrin.h>
#define MSG_MS_BFLOAT16 1
#else
#define MSG_MS_BFLOAT16 0
#endif

namespace msg_ms {

using BFloat16 = uint16_t __attribute__((may_alias));
using BFloat16Vec = uint16_t __attribute__((vector_size(kLanes * 2)));
using UIntVec = uint32_t __attribute__((vector_size(kLanes * 4)));

// Return the pairs of n numbers.
inline int64_t pair_count(int64_t n) { return (n + 1) / 2; }

struct PortableBFloat16 {
  static MSG_MS_INLINE inline void multiply_add(Vec &tile, float a, Vec b) {
    uint32_t pair;
    std::memcpy(&pair, &a, sizeof(pair));
    const UIntVec pairs = (UIntVec)b;
    tile += (Vec)(UIntVec{} + (pair & 0xffff0000u)) * (Vec)(pairs & 0xffff0000u);
    tile += (Vec)(UIntVec{} + (pair << 16)) * (Vec)(pairs << 16);
  }

  // Round to the nearest bfloat16, to the even one of two.
  static MSG_MS_INLINE inline BFloat16Vec round(Vec v) {
    const UIntVec bits = (UIntVec)v, magnitude = bits & 0x7fffffffu;
    const UIntVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, quiet_nan = (bits >> 16) | 0x40u;
    const UIntVec result = magnitude > 0x7f800000u   ? quiet_nan
                           : magnitude < 0x00800000u ? (bits >> 16) & 0x8000u
                                                     : rounded;
    return __builtin_convertvector(result, BFloat16Vec);
  }

  // Round two vectors to pairs: entry i of the first in the low half of pair i.
  static MSG_MS_INLINE inline Vec round_pair(Vec first, Vec second) {
    return (Vec)(__builtin_convertvector(round(first), UIntVec) | __builtin_convertvector(round(second), UIntVec)
                                                                    << 16);
  }

  // Return the entry of a table at each index modulo its size.
  static MSG_MS_INLINE inline Vec lookup(const Table &table, IntVec index) {
    Vec result;
    for (int i = 0; i < kLanes; ++i) result[i] = table[index[i] & (kTableSize - 1)];
    return result;
  }
};

#if MSG_MS_BFLOAT16
struct NativeBFloat16 {
  static MSG_MS_INLINE inline void multiply_add(Vec &tile, float a, Vec b) {
    tile = (Vec)_mm512_dpbf16_ps((__m512)tile, (__m512bh)_mm512_set1_ps(a), (__m512bh)b);
  }

  static MSG_MS_INLINE inline BFloat16Vec round(Vec v) { return (BFloat16Vec)_mm512_cvtneps_pbh((__m512)v); }

  static MSG_MS_INLINE inline Vec round_pair(Vec first, Vec second) {
    static constexpr std::array<uint16_t, 2 * kLanes> order = [] {
      std::array<uint16_t, 2 * kLanes> lanes{};
      for (int i = 0; i < 2 * kLanes; ++i) lanes[i] = i / 2 + i % 2 * kLanes;
      return lanes;
    }();
    const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
    return (Vec)_mm512_permutexvar_epi16(_mm512_loadu_si512(order.data()), halves);
  }

  static MSG_MS_INLINE inline Vec lookup(const Table &table, IntVec index) {
    return (Vec)_mm512_permutex2var_ps((__m512)load(table), (__m512i)index, (__m512)load(table + kLanes));
  }
};

using BFloat16Arithmetic = NativeBFloat16;
#else
using BFloat16Arithmetic = PortableBFloat16;
#endif

// Round n numbers, 1 <= n <= kLanes, and store them.
MSG_MS_INLINE inline void store_rounded(BFloat16 *to, Vec v, int64_t n) {
  const BFloat16Vec rounded = BFloat16Arithmetic::round(v);
  n == kLanes ? std::memcpy(to, &rounded, sizeof(rounded)) : std::memcpy(to, &rounded, n * sizeof(BFloat16));
}

// Load n numbers, 1 <= n <= kLanes, and fill the other lanes with zeros.
MSG_MS_INLINE inline Vec load_rounded(const BFloat16 *from, int64_t n) {
  BFloat16Vec v{};
  n == kLanes ? std::memcpy(&v, from, sizeof(v)) : std::memcpy(&v, from, n * sizeof(BFloat16));
  return (Vec)(__builtin_convertvector(v, UIntVec) << 16);
}

}  // namespace msg_ms
