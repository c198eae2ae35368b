// Antialiased bicubic and bilinear resize with the bits of Pillow 11: a horizontal pass with results rounded to bytes,
// then a vertical pass. Weights have 22 fractional bits, computed in double precision.
#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "bytes.h"

namespace images {
namespace {

constexpr int kFractionBits = 32 - 8 - 2;
constexpr int kHalf = 1 << (kFractionBits - 1);

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

double bilinear(double x) {
  x = std::fabs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

struct Filter {
  double (*weight)(double);
  double support;
};

constexpr Filter kFilters[] = {{bilinear, 1.0}, {bicubic, 2.0}};

// The inputs of each output along one axis: `count[i]` of them from `first[i]`, with weights from `size * i`.
struct Taps {
  int size;
  std::vector<int> first, count, weights;

  const int *of(int i) const { return weights.data() + static_cast<int64_t>(size) * i; }
  int begin() const { return *std::min_element(first.begin(), first.end()); }
  int end() const {
    int last = 0;
    for (size_t i = 0; i < first.size(); ++i) last = std::max(last, first[i] + count[i]);
    return last;
  }
};

// Weights of the outputs offset ... offset + length - 1 of `output`, computed from `input` values.
Taps taps(int input, int output, int offset, int length, const Filter &filter) {
  const double scale = static_cast<double>(input) / output;
  const double stretch = std::max(scale, 1.0), support = filter.support * stretch, inverse = 1.0 / stretch;
  Taps t;
  t.size = static_cast<int>(std::ceil(support)) * 2 + 1;
  t.first.resize(length);
  t.count.resize(length);
  t.weights.resize(static_cast<int64_t>(t.size) * length);
  std::vector<double> exact(t.size);
  for (int i = 0; i < length; ++i) {
    const double centre = (offset + i + 0.5) * scale;
    const int first = std::max(static_cast<int>(centre - support + 0.5), 0);
    const int count = std::min(static_cast<int>(centre + support + 0.5), input) - first;
    double sum = 0.0;
    for (int k = 0; k < count; ++k) {
      exact[k] = filter.weight((k + first - centre + 0.5) * inverse);
      sum += exact[k];
    }
    int *weights = t.weights.data() + static_cast<int64_t>(t.size) * i;
    for (int k = 0; k < count; ++k) {
      const double share = (sum != 0.0 ? exact[k] / sum : exact[k]) * (1 << kFractionBits);
      weights[k] = static_cast<int>(share < 0 ? share - 0.5 : share + 0.5);
    }
    t.first[i] = first;
    t.count[i] = count;
  }
  return t;
}

// Copy 16 rows (`rows` of them, the last one repeated) to columns: 16 bytes for each byte of a row.
void to_columns(const uint8_t *in, int64_t stride, int rows, int64_t bytes, uint8_t *columns) {
  const uint8_t *row[kLanes];
  for (int r = 0; r < kLanes; ++r) row[r] = in + stride * std::min(r, rows - 1);
  int64_t b = 0;
  for (; b + kLanes <= bytes; b += kLanes) {
    Bytes m[kLanes];
    for (int r = 0; r < kLanes; ++r) m[r] = load(row[r] + b);
    transpose(m);
    std::memcpy(columns + b * kLanes, m, sizeof(m));
  }
  for (; b < bytes; ++b)
    for (int r = 0; r < kLanes; ++r) columns[b * kLanes + r] = row[r][b];
}

// The opposite: `bytes` columns become `rows` rows. `columns` has room for whole blocks of 16.
void to_rows(const uint8_t *columns, int rows, int64_t bytes, uint8_t *out, int64_t stride) {
  for (int64_t b = 0; b < bytes; b += kLanes) {
    Bytes m[kLanes];
    std::memcpy(m, columns + b * kLanes, sizeof(m));
    transpose(m);
    const int64_t count = std::min<int64_t>(kLanes, bytes - b);
    for (int r = 0; r < rows; ++r) {
      if (count == kLanes)
        store(out + stride * r + b, m[r]);
      else
        std::memcpy(out + stride * r + b, &m[r], count);
    }
  }
}

// Resize rows; column x of the output is stored at `width - 1 - x` if they are to be mirrored.
void horizontal_pass(const uint8_t *in, int64_t stride, int rows, const Taps &t, bool mirror, uint8_t *out) {
  const int width = t.first.size(), begin = t.begin();
  const int64_t bytes = static_cast<int64_t>(t.end() - begin) * kChannels, row_bytes = int64_t{width} * kChannels;
  std::vector<uint8_t> columns(bytes * kLanes), results((row_bytes + kLanes) * kLanes);
  for (int y = 0; y < rows; y += kLanes) {
    const int block = std::min(kLanes, rows - y);
    to_columns(in + stride * y + int64_t{begin} * kChannels, stride, block, bytes, columns.data());
    for (int x = 0; x < width; ++x) {
      const int *weights = t.of(x);
      const uint8_t *source = columns.data() + static_cast<int64_t>(t.first[x] - begin) * kChannels * kLanes;
      Sums red(kHalf), green(kHalf), blue(kHalf);
      for (int k = 0; k < t.count[x]; ++k, source += kChannels * kLanes) {
        red.add(load(source), weights[k]);
        green.add(load(source + kLanes), weights[k]);
        blue.add(load(source + 2 * kLanes), weights[k]);
      }
      uint8_t *target = results.data() + int64_t{mirror ? width - 1 - x : x} * kChannels * kLanes;
      store(target, red.bytes(kFractionBits));
      store(target + kLanes, green.bytes(kFractionBits));
      store(target + 2 * kLanes, blue.bytes(kFractionBits));
    }
    to_rows(results.data(), block, row_bytes, out + row_bytes * y, row_bytes);
  }
}

// Make each output row from the rows `t.first - begin` and on of `in`; all rows have `bytes` bytes.
void vertical_pass(const uint8_t *in, int64_t stride, int begin, int64_t bytes, const Taps &t, uint8_t *out) {
  const int height = t.first.size();
  for (int y = 0; y < height; ++y, out += bytes) {
    const int *weights = t.of(y);
    const uint8_t *top = in + stride * (t.first[y] - begin);
    int64_t b = 0;
    for (; b + 2 * kLanes <= bytes; b += 2 * kLanes) {
      Sums first(kHalf), second(kHalf);
      const uint8_t *source = top + b;
      for (int k = 0; k < t.count[y]; ++k, source += stride) {
        first.add(load(source), weights[k]);
        second.add(load(source + kLanes), weights[k]);
      }
      store(out + b, first.bytes(kFractionBits));
      store(out + b + kLanes, second.bytes(kFractionBits));
    }
    for (; b < bytes; ++b) {
      int sum = kHalf;
      for (int k = 0; k < t.count[y]; ++k) sum += top[stride * k + b] * weights[k];
      out[b] = clip(sum >> kFractionBits);
    }
  }
}

void copy_rows(const uint8_t *in, int64_t stride, int rows, int width, bool mirror, uint8_t *out) {
  for (int y = 0; y < rows; ++y, in += stride, out += int64_t{width} * kChannels) {
    if (!mirror) {
      std::memcpy(out, in, int64_t{width} * kChannels);
      continue;
    }
    for (int x = 0; x < width; ++x) std::memcpy(out + kChannels * (width - 1 - x), in + kChannels * x, kChannels);
  }
}

}  // namespace
}  // namespace images

// Resize uint8 RGB (height, width, 3), whose rows are `stride` bytes apart, to (new_height, new_width), and write the
// part from (top, left) of `crop_height` x `crop_width` pixels to `out`, mirrored if asked for. `filter` is 0 for
// bilinear, 1 for bicubic. Returns 0, or 1 without memory.
EXPORT int resize(const uint8_t *in, int64_t stride, int height, int width, int new_height, int new_width, int top,
                  int left, int crop_height, int crop_width, int filter, int mirror, uint8_t *out) try {
  using namespace images;
  const bool horizontal = new_width != width, vertical = new_height != height;
  const Taps rows = vertical ? taps(height, new_height, top, crop_height, kFilters[filter]) : Taps{};
  const int begin = vertical ? rows.begin() : top, end = vertical ? rows.end() : top + crop_height;
  const uint8_t *source = in + stride * begin;
  const int64_t bytes = int64_t{crop_width} * kChannels;
  std::vector<uint8_t> middle(vertical && (horizontal || mirror) ? bytes * (end - begin) : 0);
  uint8_t *wide = vertical ? middle.data() : out;
  if (horizontal)
    horizontal_pass(source, stride, end - begin, taps(width, new_width, left, crop_width, kFilters[filter]), mirror,
                    wide);
  else if (mirror || !vertical)
    copy_rows(source + int64_t{left} * kChannels, stride, end - begin, crop_width, mirror, wide);
  if (!vertical) return 0;
  if (horizontal || mirror)
    vertical_pass(middle.data(), bytes, begin, bytes, rows, out);
  else
    vertical_pass(source + int64_t{left} * kChannels, stride, begin, bytes, rows, out);
  return 0;
} catch (const std::bad_alloc &) {
  return 1;
}
