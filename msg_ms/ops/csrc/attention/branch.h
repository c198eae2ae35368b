// The common part of a block's two residual branches, x + drop_path_scale * f(LayerNorm(x)), and of their gradients.
//
// A branch runs on chunks of rows, so that its intermediate results stay in the second-level cache. With enough rows
// each thread works on chunks of its own (chunk-parallel); else the threads share the loops inside one chunk at a time.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/kernel.h"
#include "base/layer_norm.h"
#include "gemm/gemm.h"

namespace msg_ms {

// The gradient of a vector of n parameters: each thread sums for itself, and the destructor writes the total to `to`.
class VectorGradient {
 public:
  VectorGradient(int64_t n, float *to) : n_(n), to_(to), partial_sums_(num_threads() * n) {
    std::memset(to, 0, n * sizeof(float));
  }
  ~VectorGradient() { add_partial_sums(partial_sums_, num_threads(), n_, to_); }

  float *of_thread(int thread) const { return partial_sums_ + thread * n_; }
  float *of_all_threads() const { return partial_sums_; }

 private:
  int64_t n_;
  float *to_;
  ZeroedWorkspace partial_sums_;
};

// The gradient of a weight, a sum of products. If chunk-parallel, each thread sums for itself: the first in `to`, to
// which the destructor adds the others.
class WeightGradient {
 public:
  WeightGradient(int64_t rows, int64_t columns, float *to, bool chunk_parallel)
      : rows_(rows),
        columns_(columns),
        to_(to),
        initialized_(num_threads(), 0),
        partial_sums_(chunk_parallel ? (num_threads() - 1) * rows * columns : 1) {}

  ~WeightGradient() {
    const int64_t n = rows_ * columns_;
    parallel_for(n, kMinElements, [&](int, int64_t begin, int64_t end) {
      if (!initialized_[0]) std::memset(to_ + begin, 0, (end - begin) * sizeof(float));
      for (int thread = 1; thread < static_cast<int>(initialized_.size()); ++thread) {
        if (initialized_[thread]) add_partial_sums(of_thread(thread) + begin, 1, end - begin, to_ + begin);
      }
    });
  }

  // Add a (rows, depth) b (depth, columns).
  void add(int64_t depth, Matrix a, Matrix b) {
    const int thread = std::max(serial_thread(), 0);
    gemm(rows_, columns_, depth, a, b, of_thread(thread), nullptr, initialized_[thread]);
    initialized_[thread] = 1;
  }

 private:
  float *of_thread(int thread) const { return thread == 0 ? to_ : partial_sums_ + (thread - 1) * rows_ * columns_; }

  int64_t rows_, columns_;
  float *to_;
  std::vector<char> initialized_;
  Workspace partial_sums_;
};

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

  // Return how many rows of `width` floats fit into the second-level cache, as a multiple of `unit` rows.
  int64_t chunk_rows(int64_t width, int64_t unit) const {
    constexpr int64_t kCacheFloats = 1 << 16, kMinRows = 100;
    return std::max<int64_t>(1, std::max(kMinRows, kCacheFloats / width) / unit) * unit;
  }

  // Whether there are enough rows for each thread to work on chunks of its own.
  bool chunk_parallel() const {
    return serial_thread() < 0 && num_threads() > 1 && count >= num_threads() * int64_t{64};
  }

  // Call body(first, n) for chunks of n rows from row `first`: on all threads if `chunk_parallel`. Else call it on this
  // thread with larger chunks, so that the loops inside are worth sharing.
  template <typename Body>
  void for_each_chunk(int64_t width, int64_t unit, bool chunk_parallel, const Body &body) const {
    constexpr int64_t kSharedFactor = 8;
    const int64_t target = chunk_rows(width, unit) * (chunk_parallel ? 1 : kSharedFactor);
    const auto run_range = [&](int64_t begin, int64_t end) {  // in units
      const int64_t chunks = std::max<int64_t>(1, ((end - begin) * unit + target / 2) / target);
      for (int64_t i = 0; i < chunks; ++i) {
        const int64_t from = begin + (end - begin) * i / chunks, to = begin + (end - begin) * (i + 1) / chunks;
        body(from * unit, (to - from) * unit);
      }
    };
    if (chunk_parallel) {
      parallel_for_serial(count / unit, run_range);
    } else {
      run_range(0, count / unit);
    }
  }

  // Return the least number of rows that is worth a thread.
  int64_t grain(int64_t elements = kMinElements) const { return elements / channels + 1; }

  // Normalize rows [first, first + n) of x into y. Padded patches become zeros.
  void normalize(int64_t first, int64_t n, const float *gamma, const float *beta, float *y) const {
    parallel_for(n, grain(), [&](int, int64_t begin, int64_t end) {
      for_rows_at_once(begin, end, [&](int64_t i, auto rows) {
        normalize_rows<rows>(x + (first + i) * channels, channels, nullptr, gamma, beta, channels,
                             [&](int r, int64_t c, int64_t lanes, Vec value)
                               MSG_MS_INLINE { store_lanes(y + (i + r) * channels + c, value, lanes); });
      });
      for (int64_t i = begin; padding && i < end; ++i) {
        if (padding.covers(first + i)) std::memset(y + i * channels, 0, channels * sizeof(float));
      }
    });
  }

  // Return the epilogue of the branch's last GEMM, for rows from `first`: out = x + drop_path_scale * (out + bias).
  auto residual_epilogue(int64_t first, const float *bias, float *out) const {
    return [=](int, int64_t row, int64_t rows, int64_t column, int64_t columns) {
      for (int64_t i = first + row; i < first + row + rows; ++i) {
        const float scale = drop_path_scale[i / rows_per_scale], *from = x + i * channels;
        float *to = out + i * channels;
        prefetch(from + rows * channels + column, columns);  // for the next tile
#pragma omp simd
        for (int64_t c = column; c < column + columns; ++c) to[c] = from[c] + scale * (to[c] + bias[c]);
      }
    };
  }

  // Return the branch's gradient, drop_path_scale * dout, for rows from `first`: in `workspace`, or dout if unscaled.
  // Add its column sums to dbias.
  const float *branch_gradient(int64_t first, int64_t n, const float *dout, float *workspace,
                               const VectorGradient &dbias) const {
    parallel_for(n, grain(), [&](int thread, int64_t begin, int64_t end) {
      float *total = dbias.of_thread(thread);
      for (int64_t i = begin; i < end; ++i) {
        const float scale = drop_path_scale[(first + i) / rows_per_scale], *from = dout + i * channels;
        float *to = workspace + i * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) {
          const float d = from[c] * scale;
          total[c] += d;
          if (!unscaled) to[c] = d;
        }
      }
    });
    return unscaled ? dout : workspace;
  }

  // Compute dx = dout + the gradient through the normalization, for rows from `first`, and add to dgamma and dbeta.
  // Overwrites dnormalized; dx may be dout.
  void input_gradient(int64_t first, int64_t n, const float *dout, float *dnormalized, const float *gamma, float *dx,
                      const VectorGradient &dgamma, const VectorGradient &dbeta) const {
    parallel_for(n, grain(), [&](int thread, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        float *d = dnormalized + i * channels;
        if (padding && padding.covers(first + i)) {
          if (dx != dout) std::memcpy(dx + i * channels, dout + i * channels, channels * sizeof(float));
          continue;
        }
        normalize_row_grad(x + (first + i) * channels, d, gamma, channels, d, dgamma.of_thread(thread),
                           dbeta.of_thread(thread));
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) dx[i * channels + c] = dout[i * channels + c] + d[c];
      }
    });
  }

  // Shuffle the MSG tokens of each region in place: swap group i of window w with group w of window i. The shuffle is
  // its own inverse, and so its own gradient.
  void shuffle_msg_tokens(float *rows) const {
    if (padding) return shuffle_padded_msg_tokens(rows);
    const int64_t group = channels / windows;
    parallel_for(regions, grain(1 << 17) / windows + 1, [&](int, int64_t begin, int64_t end) {
      for (int64_t region = begin; region < end; ++region) {
        const auto msg_token = [&](int64_t window) { return rows + (region * windows + window) * tokens * channels; };
        for (int64_t w = 0; w < windows; ++w) {
          for (int64_t i = 0; i < w; ++i) {
            std::swap_ranges(msg_token(w) + i * group, msg_token(w) + (i + 1) * group, msg_token(i) + w * group);
          }
        }
      }
    });
  }

  // The same on a grid of windows that need not fill its regions. Windows outside send zeros, and groups sent to them
  // are lost. This is its own gradient, too.
  void shuffle_padded_msg_tokens(float *rows) const {
    const int64_t side = padding.region, slots = side * side, group = channels / slots;
    const int64_t high = (padding.rows + side - 1) / side, wide = (padding.columns + side - 1) / side;
    const int64_t grid = padding.rows * padding.columns, images = regions * windows / grid;
    parallel_for(images * high * wide, grain(1 << 17) / slots + 1, [&](int, int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t top = r / wide % high * side, left = r % wide * side;
        const auto msg_token = [&](int64_t slot) -> float * {
          const int64_t y = top + slot / side, x = left + slot % side;
          if (y >= padding.rows || x >= padding.columns) return nullptr;
          return rows + (r / (high * wide) * grid + y * padding.columns + x) * tokens * channels;
        };
        for (int64_t w = 0; w < slots; ++w) {
          for (int64_t i = 0; i < w; ++i) {
            float *a = msg_token(w), *b = msg_token(i);
            if (a != nullptr && b != nullptr) {
              std::swap_ranges(a + i * group, a + (i + 1) * group, b + w * group);
            } else if (a != nullptr) {
              std::fill(a + i * group, a + (i + 1) * group, 0.0f);
            } else if (b != nullptr) {
              std::fill(b + w * group, b + (w + 1) * group, 0.0f);
            }
          }
        }
      }
    });
  }
};

}  // namespace msg_ms
