// The shuffle of the MSG tokens (the paper, section 3.3), in place.
#pragma once

#include <algorithm>

#include "attention/branch.h"

namespace msg_ms {

// Shuffle on a grid of windows that need not fill its regions. Windows outside send zeros, and groups sent to them are
// lost. This is its own gradient, too.
inline void shuffle_padded_msg_tokens(const Branch &branch, float *rows) {
  const Padding &padding = branch.padding;
  const int64_t side = padding.region, slots = side * side, group = branch.channels / slots;
  const int64_t high = (padding.rows + side - 1) / side, wide = (padding.columns + side - 1) / side;
  const int64_t grid = padding.rows * padding.columns, images = branch.regions * branch.windows / grid;
  parallel_for(images * high * wide, branch.grain(1 << 17) / slots + 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t top = r / wide % high * side, left = r % wide * side;
      const auto msg_token = [&](int64_t slot) -> float * {
        const int64_t y = top + slot / side, x = left + slot % side;
        if (y >= padding.rows || x >= padding.columns) return nullptr;
        const int64_t window = r / (high * wide) * grid + y * padding.columns + x;
        return rows + window * branch.tokens * branch.channels;
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

// Shuffle the MSG tokens of each region of the branch's output: swap group i of window w with group w of window i. The
// shuffle is its own inverse, and so its own gradient.
inline void shuffle_msg_tokens(const Branch &branch, float *rows) {
  if (branch.padding) return shuffle_padded_msg_tokens(branch, rows);
  const int64_t windows = branch.windows, group = branch.channels / windows;
  parallel_for(branch.regions, branch.grain(1 << 17) / windows + 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t region = begin; region < end; ++region) {
      const auto msg_token = [&](int64_t window) {
        return rows + (region * windows + window) * branch.tokens * branch.channels;
      };
      for (int64_t w = 0; w < windows; ++w) {
        for (int64_t i = 0; i < w; ++i) {
          std::swap_ranges(msg_token(w) + i * group, msg_token(w) + (i + 1) * group, msg_token(i) + w * group);
        }
      }
    }
  });
}

}  // namespace msg_ms
