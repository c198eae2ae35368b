// Rotation with the bits of Pillow 11's bicubic affine transform: double precision, results truncated to bytes.
#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "bytes.h"

namespace images {
namespace {

using Ints4 = int32_t __attribute__((vector_size(16)));
using Doubles4 = double __attribute__((vector_size(32)));

inline Doubles4 exact(Ints4 v) {
#ifdef __AVX2__
  return (Doubles4)_mm256_cvtepi32_pd((__m128i)v);
#else
  return __builtin_convertvector(v, Doubles4);
#endif
}

// Pillow's polynomial through four neighbours. Its coefficients are integers for bytes, so they are exact.
inline Doubles4 between(const Ints4 *row, const int (&x)[4], double d) {
  const Ints4 a = row[x[0]], b = row[x[1]], c = row[x[2]], e = row[x[3]];
  return exact(b) + d * (exact(c - a) + d * (exact(2 * (a - b) + c - e) + d * exact(b - a - c + e)));
}

inline Doubles4 between(Doubles4 a, Doubles4 b, Doubles4 c, Doubles4 e, double d) {
  return b + d * ((c - a) + d * ((2 * (a - b) + c - e) + d * (((b - a) - c) + e)));
}

}  // namespace
}  // namespace images

// Fill uint8 RGB (height, width, 3) `out`: the pixel at (x, y) is `in` at `matrix` (2 x 3) times (x + 0.5, y + 0.5, 1),
// or `fill` outside of it. Rows of `in` are `stride` bytes apart.
// Returns 0, or 1 without memory.
EXPORT int affine_bicubic(const uint8_t *in, int64_t stride, int height, int width, const double *matrix,
                          const uint8_t *fill, uint8_t *out) try {
  using namespace images;
  std::vector<Ints4> pixels(int64_t{height} * width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const uint8_t *p = in + stride * y + kChannels * x;
      pixels[int64_t{width} * y + x] = Ints4{p[0], p[1], p[2], 0};
    }
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x, out += kChannels) {
      const double column = x + 0.5, line = y + 0.5;
      double from_x = matrix[0] * column + matrix[1] * line + matrix[2];
      double from_y = matrix[3] * column + matrix[4] * line + matrix[5];
      if (from_x < 0.0 || from_x >= width || from_y < 0.0 || from_y >= height) {
        std::memcpy(out, fill, kChannels);
        continue;
      }
      from_x -= 0.5;
      from_y -= 0.5;
      const int left = static_cast<int>(std::floor(from_x)), top = static_cast<int>(std::floor(from_y));
      const double dx = from_x - left, dy = from_y - top;
      int columns[4];
      for (int k = 0; k < 4; ++k) columns[k] = std::clamp(left + k - 1, 0, width - 1);
      Doubles4 rows[4];
      rows[0] = between(pixels.data() + int64_t{width} * std::clamp(top - 1, 0, height - 1), columns, dx);
      for (int k = 1; k < 4; ++k) {
        const int row = top + k - 1;  // a missing row repeats the one above
        rows[k] = row >= 0 && row < height ? between(pixels.data() + int64_t{width} * row, columns, dx) : rows[k - 1];
      }
      const Doubles4 values = between(rows[0], rows[1], rows[2], rows[3], dy);
      for (int c = 0; c < kChannels; ++c)
        out[c] = values[c] <= 0.0 ? 0 : values[c] >= 255.0 ? 255 : static_cast<uint8_t>(values[c]);
    }
  }
  return 0;
} catch (const std::bad_alloc &) {
  return 1;
}
