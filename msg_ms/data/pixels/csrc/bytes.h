// Vectors of 16 bytes (GCC and Clang vector extensions, so any little-endian CPU), and sums of their multiples.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace images {

constexpr int kLanes = 16;
constexpr int kChannels = 3;

using Bytes = uint8_t __attribute__((vector_size(kLanes)));

inline Bytes load(const uint8_t *p) {
  Bytes v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

inline void store(uint8_t *p, Bytes v) { std::memcpy(p, &v, sizeof(v)); }

inline int clip(int value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Bytes{__VA_ARGS__})
#endif

inline Bytes interleave_low(Bytes a, Bytes b) {
  return SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

inline Bytes interleave_high(Bytes a, Bytes b) {
  return SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

inline Bytes even_bytes(Bytes a, Bytes b) {
  return SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}

// Transpose a matrix of 16 x 16 bytes: four rounds, each interleaves row i with row i + 8.
inline void transpose(Bytes (&m)[kLanes]) {
  for (int round = 0; round < 4; ++round) {
    Bytes next[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = interleave_low(m[i], m[i + kLanes / 2]);
      next[2 * i + 1] = interleave_high(m[i], m[i + kLanes / 2]);
    }
    std::memcpy(m, next, sizeof(m));
  }
}

// Sixteen 32-bit sums. GCC 12 converts vectors of bytes and integers lane by lane, hence the two forms.
#ifdef __AVX512F__
struct Sums {
  using Part = int32_t __attribute__((vector_size(64)));
  Part part;

  explicit Sums(int start) : part(Part{} + start) {}
  void add(Bytes v, int factor) { part += (Part)_mm512_maskz_cvtepu8_epi32(0xffff, (__m128i)v) * factor; }
  // Each sum divided by 2^bits, rounded down and clipped to a byte.
  Bytes bytes(int bits) const {
    const Part high = part >> bits, positive = high & (high > 0);
    return (Bytes)_mm512_maskz_cvtusepi32_epi8(0xffff, (__m512i)positive);
  }
};
#else
struct Sums {
  using Part = int32_t __attribute__((vector_size(16)));
  Part part[4];

  explicit Sums(int start) {
    for (auto &p : part) p = Part{} + start;
  }
  void add(Bytes v, int factor) {
    const Bytes low = interleave_low(v, Bytes{}), high = interleave_high(v, Bytes{});
    part[0] += (Part)interleave_low(low, Bytes{}) * factor;
    part[1] += (Part)interleave_high(low, Bytes{}) * factor;
    part[2] += (Part)interleave_low(high, Bytes{}) * factor;
    part[3] += (Part)interleave_high(high, Bytes{}) * factor;
  }
  Bytes bytes(int bits) const {
    Bytes b[4];
    for (int i = 0; i < 4; ++i) {
      Part v = part[i] >> bits;
      v &= v > 0;
      v |= v > 255;  // the lowest byte is then 255
      b[i] = (Bytes)v;
    }
    return even_bytes(even_bytes(b[0], b[1]), even_bytes(b[2], b[3]));
  }
};
#endif

}  // namespace images
