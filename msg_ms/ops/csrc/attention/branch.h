// The common part of a block's two residual branches, x + drop_path_scale * f(LayerNorm(x)): their input.
//
// They share chunks.h (rows that stay in the cache), normalization.h, residual.h, gradients.h (of the parameters) and
// shuffle.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/chunks.h"
#include "base/kernel.h"

namespace msg_ms {

constexpr float kNoDropPath = 1.0f;  // the drop_path_scale of a branch that is never dropped

// The windows of a map that need not fill them, in row order, each a region of its own: `height` x `width` patch tokens
// in `rows` x `columns` windows, and shuffle regions of `region` x `region` windows. All 0 if the map fills windows and
// regions.
struct Padding {
  int64_t height = 0, width = 0, rows = 0, columns = 0, region = 0, tokens = 0, side = 0;

  // Read the settings from index `first`, if there are any; `count` is their number.
  static Padding read(const float *settings, int64_t first, int64_t count, int64_t tokens) {
    if (count == first) return {};
    const auto at = [&](int64_t i) { return std::lround(settings[first + i]); };
    return {at(0), at(1), at(2), at(3), at(4), tokens, std::lround(std::sqrt(static_cast<double>(tokens - 1)))};
  }

  explicit operator bool() const { return rows > 0; }

  // Whether a row of tokens is a padded patch.
  bool covers(int64_t row) const {
    const int64_t patch = row % tokens - 1, window = row / tokens % (rows * columns);
    if (patch < 0) return false;
    return window / columns * side + patch / side >= height || window % columns * side + patch % side >= width;
  }
};

// The block's input (regions, windows, tokens, channels), and the scale of each image's branch (or one scale for all).
struct Branch {
  int64_t regions, windows, tokens, channels, count, rows_per_scale;
  const float *x, *drop_path_scale;
  bool unscaled;  // every scale is 1
  Padding padding{};

  Branch(const int64_t *shape, const float *input, const float *scales, int64_t scale_count)
      : regions(shape[0]),
        windows(shape[1]),
        tokens(shape[2]),
        channels(shape[3]),
        count(regions * windows * tokens),
        rows_per_scale(count / scale_count),
        x(input),
        drop_path_scale(scales),
        unscaled(std::all_of(scales, scales + scale_count, [](float scale) { return scale == 1.0f; })) {}

  float scale_of(int64_t row) const { return drop_path_scale[row / rows_per_scale]; }
  bool is_padding(int64_t row) const { return padding && padding.covers(row); }
  bool chunk_parallel() const { return num_threads() > 1 && has_many_rows(count); }

  // Return the least number of rows that is worth a thread.
  int64_t grain(int64_t elements = kMinElements) const { return elements / channels + 1; }
};

}  // namespace msg_ms
