// Masks cropped to boxes, and masks of detections at full size. The definitions are in boxes/masks.py.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

#include "runs.h"

namespace boxes {
namespace {

// The pixels that each output along one axis reads, and their weights.
struct Axis {
  std::vector<int> pixels;  // outputs x taps
  std::vector<double> weights;
  int taps = 1, first = 0, last = -1;  // the range of pixels
  double low, high;                    // the extent of the outputs
};

Axis crop_axis(double low, double high, int size, const int64_t *source, int count) {
  Axis axis;
  const int start =
    static_cast<int>(std::min(std::max(std::floor(low) - 1, 0.0), static_cast<double>(std::max(count - size, 0))));
  if (std::min(std::ceil(high) + 1, static_cast<double>(count)) - start <= size) {
    axis.low = start;
    axis.high = start + size;
    axis.weights.assign(size, 1.0);
    for (int i = 0; i < size; ++i) axis.pixels.push_back(static_cast<int>(source[std::min(start + i, count - 1)]));
  } else {
    axis.low = low;
    axis.high = high;
    const double begin = low - 0.5, length = (high - low) / size;
    const int samples = static_cast<int>(std::max(std::ceil(length), 0.0));
    axis.taps = 2 * samples;
    for (int i = 0; i < size; ++i)
      for (int side = 0; side < 2; ++side)
        for (int s = 0; s < samples; ++s) {
          const double position = begin + length * (i + (s + 0.5) / samples);
          const bool used = position >= -1 && position <= count;
          const double inside = std::min(std::max(position, 0.0), count - 1.0), lower = std::floor(inside);
          const double fraction = inside - lower;
          const int pixel = static_cast<int>(lower);
          axis.pixels.push_back(static_cast<int>(source[std::min(pixel + side, count - 1)]));
          axis.weights.push_back((used ? side ? fraction : 1 - fraction : 0.0) / samples);
        }
  }
  if (!axis.pixels.empty()) {
    const auto [least, largest] = std::minmax_element(axis.pixels.begin(), axis.pixels.end());
    axis.first = *least;
    axis.last = *largest;
  }
  return axis;
}

// Fill columns [left, right) of a mask, one column after another.
std::vector<uint8_t> decode_columns(const char *text, const char *end, int64_t height, int64_t left, int64_t right) {
  std::vector<uint8_t> pixels(std::max<int64_t>(right - left, 0) * height);
  const int64_t begin = left * height, stop = right * height;
  int64_t position = 0;
  bool on = false;
  for (const int64_t run : decode_runs(text, end)) {
    const int64_t next = position + run, from = std::max(position, begin), to = std::min(next, stop);
    if (on && from < to) std::memset(pixels.data() + from - begin, 1, to - from);
    position = next;
    on = !on;
  }
  return pixels;
}

// The weights of the two mask cells around a pixel's centre.
struct Pair {
  int cell[2];
  double weight[2];
};

std::vector<Pair> paste_axis(int first, int end, double low, double high, int cells) {
  std::vector<Pair> pairs;
  for (int pixel = first; pixel < end; ++pixel) {
    // Without extent every pixel reads the mask's centre.
    const double position = high != low ? (pixel + 0.5 - low) / (high - low) * cells - 0.5 : cells / 2.0 - 0.5;
    Pair pair{};
    const double lower = std::floor(position);
    for (int side = 0; side < 2; ++side) {
      const double cell = lower + side;
      if (!(cell >= 0 && cell < cells)) continue;
      pair.cell[side] = static_cast<int>(cell);
      pair.weight[side] = std::max(1 - std::abs(position - cell), 0.0);
    }
    pairs.push_back(pair);
  }
  return pairs;
}

// A whole number from 0 to `most`; 0 for NaN.
int bounded(double value, int most) { return value >= 0 ? static_cast<int>(std::min<double>(value, most)) : 0; }

}  // namespace
}  // namespace boxes

// Crop the masks of an image's objects to their boxes. `text` holds the compressed runs of all masks (height, width),
// object k from `starts[k]` to `starts[k + 1]`. The image's pixel (y, x) is the mask's at (rows[y], columns[x]).
// Writes uint8 (count, size, size) `crops` and the boxes (count, 4) that they show. Returns 0, or 1 without memory.
EXPORT int crop_masks(const char *text, const int64_t *starts, int count, int height, const int64_t *rows, int n_rows,
                      const int64_t *columns, int n_columns, const double *xyxy, int size, uint8_t *crops,
                      float *shown) try {
  using namespace boxes;
  for (int k = 0; k < count; ++k, xyxy += 4, crops += size * size, shown += 4) {
    const Axis across = crop_axis(xyxy[0], xyxy[2], size, columns, n_columns);
    const Axis down = crop_axis(xyxy[1], xyxy[3], size, rows, n_rows);
    const float frame[] = {float(across.low), float(down.low), float(across.high), float(down.high)};
    std::memcpy(shown, frame, sizeof(frame));
    const auto mask = decode_columns(text + starts[k], text + starts[k + 1], height, across.first, across.last + 1);
    std::vector<double> line(std::max(down.last - down.first + 1, 0));
    for (int x = 0; x < size; ++x) {
      std::fill(line.begin(), line.end(), 0.0);
      for (int tap = 0; tap < across.taps; ++tap) {
        const uint8_t *column = mask.data() + (across.pixels[x * across.taps + tap] - across.first) * int64_t{height};
        const double weight = across.weights[x * across.taps + tap];
        for (size_t y = 0; y < line.size(); ++y) line[y] += weight * column[down.first + y];
      }
      for (int y = 0; y < size; ++y) {
        double sum = 0.0;
        for (int tap = 0; tap < down.taps; ++tap)
          sum += down.weights[y * down.taps + tap] * line[down.pixels[y * down.taps + tap] - down.first];
        crops[y * size + x] = static_cast<uint8_t>(255 * sum + (0.5 + 1e-3));
      }
    }
  }
  return 0;
} catch (const std::bad_alloc &) {
  return 1;
}

// Paste masks (count, cells_y, cells_x) into boxes (count, 4) of an image and encode the pixels of `threshold` or more.
// Returns their compressed runs as one text, object k from `starts[k]` to `starts[k + 1]`, for `free_text`; null
// without memory.
EXPORT char *paste_masks(const float *probabilities, int count, int cells_y, int cells_x, const double *xyxy,
                         int height, int width, double threshold, int64_t *starts) try {
  using namespace boxes;
  std::string text;
  starts[0] = 0;
  for (int k = 0; k < count; ++k, xyxy += 4, probabilities += cells_y * cells_x) {
    const int top = bounded(std::floor(xyxy[1]) - 1, height), bottom = bounded(std::ceil(xyxy[3]) + 1, height);
    const int left = bounded(std::floor(xyxy[0]) - 1, width), right = bounded(std::ceil(xyxy[2]) + 1, width);
    const auto rows = paste_axis(top, bottom, xyxy[1], xyxy[3], cells_y);
    const auto columns = paste_axis(left, right, xyxy[0], xyxy[2], cells_x);
    RunEncoder runs(int64_t{height} * width);
    std::vector<double> line(cells_y);
    for (size_t x = 0; x < columns.size(); ++x) {
      const Pair &c = columns[x];
      for (int y = 0; y < cells_y; ++y) {
        const float *row = probabilities + y * cells_x;
        line[y] = c.weight[0] * row[c.cell[0]] + c.weight[1] * row[c.cell[1]];
      }
      const int64_t column = (left + static_cast<int64_t>(x)) * height + top;
      int64_t begin = -1;
      for (size_t y = 0; y <= rows.size(); ++y) {
        const bool on =
          y < rows.size() &&
          rows[y].weight[0] * line[rows[y].cell[0]] + rows[y].weight[1] * line[rows[y].cell[1]] >= threshold;
        if (on && begin < 0) begin = static_cast<int64_t>(y);
        if (!on && begin >= 0) {
          runs.add(column + begin, column + static_cast<int64_t>(y));
          begin = -1;
        }
      }
    }
    text += runs.text();
    starts[k + 1] = static_cast<int64_t>(text.size());
  }
  char *copy = static_cast<char *>(std::malloc(text.size() + 1));
  if (copy != nullptr) std::memcpy(copy, text.c_str(), text.size() + 1);
  return copy;
} catch (const std::bad_alloc &) {
  return nullptr;
}

EXPORT void free_text(char *text) { std::free(text); }
