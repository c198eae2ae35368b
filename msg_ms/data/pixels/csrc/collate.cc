// Planes of floats from images of bytes.
#include "bytes.h"

namespace images {
namespace {

constexpr int kBlock = 64;  // pixels
using Planes = uint8_t[kChannels][kBlock];

// With one rounding where the processor can, as in OpenCV's weighted sum, whose bits these are.
inline double multiply_add(double a, double b, double c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// Separate the channels of 16 pixels.
inline void split_channels(const uint8_t *p, uint8_t *red, uint8_t *green, uint8_t *blue) {
  const Bytes a = load(p), b = load(p + kLanes), c = load(p + 2 * kLanes);
  store(red, SHUFFLE(SHUFFLE(a, b, 0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0, 0, 0, 0, 0), c, 0, 1, 2, 3, 4, 5, 6, 7, 8,
                     9, 10, 17, 20, 23, 26, 29));
  store(green, SHUFFLE(SHUFFLE(a, b, 1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 0, 0, 0, 0, 0), c, 0, 1, 2, 3, 4, 5, 6, 7,
                       8, 9, 10, 18, 21, 24, 27, 30));
  store(blue, SHUFFLE(SHUFFLE(a, b, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 0, 0, 0, 0, 0, 0), c, 0, 1, 2, 3, 4, 5, 6, 7,
                      8, 9, 16, 19, 22, 25, 28, 31));
}

void split_channels(const uint8_t *p, int count, Planes &planes) {
  int i = 0;
  for (; i + kLanes <= count; i += kLanes)
    split_channels(p + kChannels * i, planes[0] + i, planes[1] + i, planes[2] + i);
  for (; i < count; ++i)
    for (int c = 0; c < kChannels; ++c) planes[c][i] = p[kChannels * i + c];
}

// Write plane c of an image of `pixels` pixels: image * own[c] + other * theirs[c] + offset[c]. `other` may be null.
void blend(const uint8_t *image, const uint8_t *other, int64_t pixels, const double *own, const double *theirs,
           const double *offset, float *out) {
  Planes a, b;
  for (int64_t begin = 0; begin < pixels; begin += kBlock) {
    const int count = pixels - begin < kBlock ? static_cast<int>(pixels - begin) : kBlock;
    split_channels(image + kChannels * begin, count, a);
    if (other != nullptr) split_channels(other + kChannels * begin, count, b);
    for (int c = 0; c < kChannels; ++c) {
      float *plane = out + pixels * c + begin;
      const double x = own[c], y = theirs[c], z = offset[c];
      if (other == nullptr) {
#pragma omp simd
        for (int i = 0; i < count; ++i) plane[i] = static_cast<float>(multiply_add(a[c][i], x, z));
      } else {
#pragma omp simd
        for (int i = 0; i < count; ++i)
          plane[i] = static_cast<float>(multiply_add(a[c][i], x, multiply_add(b[c][i], y, z)));
      }
    }
  }
}

}  // namespace
}  // namespace images

// Write the planes (count, 3, pixels) of `count` uint8 RGB images: value * own[c] + offset[c], plus the value of the
// image at the mirrored position * theirs[c] if `mixed`. The sums have double precision.
EXPORT void blend_images(const uint8_t *const *in, int count, int64_t pixels, int mixed, const double *own,
                         const double *theirs, const double *offset, float *out) {
  using namespace images;
  for (int i = 0; i < count; ++i)
    blend(in[i], mixed ? in[count - 1 - i] : nullptr, pixels, own, theirs, offset, out + kChannels * pixels * i);
}
