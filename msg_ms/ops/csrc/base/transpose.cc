// Transposition of a tensor with any number of axes; see transpose.py.

#include <algorithm>
#include <vector>

#include "base/kernel.h"

namespace msg_ms {
namespace {

// An axis of the output: its length, and the distance of its entries in the input and in the output.
struct Axis {
  int64_t length, from, to;
};

// Return the output's axes without those of length 1; neighbours that are contiguous in the input are one axis.
std::vector<Axis> merged_axes(const float *settings, int64_t count) {
  std::vector<int64_t> strides(count, 1);
  for (int64_t i = count - 1; i > 0; --i) strides[i - 1] = strides[i] * static_cast<int64_t>(settings[i]);
  std::vector<Axis> axes;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t axis = static_cast<int64_t>(settings[count + i]), length = static_cast<int64_t>(settings[axis]);
    if (length == 1) continue;
    if (!axes.empty() && axes.back().from == length * strides[axis]) {
      axes.back() = {axes.back().length * length, strides[axis], 1};
    } else {
      axes.push_back({length, strides[axis], 1});
    }
  }
  if (axes.empty()) axes.push_back({1, 1, 1});
  for (size_t i = axes.size() - 1; i > 0; --i) axes[i - 1].to = axes[i].to * axes[i].length;
  return axes;
}

// Call body(from, to) with the offsets of entries [begin, end) of some axes, the last one fastest.
template <typename Body>
void for_each_entry(const std::vector<Axis> &axes, int64_t begin, int64_t end, const Body &body) {
  std::vector<int64_t> index(axes.size());
  int64_t from = 0, to = 0;
  for (int64_t i = static_cast<int64_t>(axes.size()) - 1, rest = begin; i >= 0; rest /= axes[i].length, --i) {
    index[i] = rest % axes[i].length;
    from += index[i] * axes[i].from;
    to += index[i] * axes[i].to;
  }
  for (int64_t entry = begin; entry < end; ++entry) {
    body(from, to);
    for (int64_t i = static_cast<int64_t>(axes.size()) - 1; i >= 0; --i) {
      from += axes[i].from;
      to += axes[i].to;
      if (++index[i] < axes[i].length) break;
      from -= axes[i].length * axes[i].from;
      to -= axes[i].length * axes[i].to;
      index[i] = 0;
    }
  }
}

// Transpose a matrix (rows, columns): rows of the input are `from_stride` apart, rows of the output `to_stride`.
void transpose_matrix(const float *from, int64_t from_stride, int64_t rows, int64_t columns, float *to,
                      int64_t to_stride) {
  if (rows <= 2) {
    // Too few for squares.
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = 0; r < rows; ++r) to[c * to_stride + r] = from[r * from_stride + c];
    }
    return;
  }
  for (int64_t r = 0; r < rows; r += kLanes) {
    const int64_t height = std::min<int64_t>(kLanes, rows - r);
    for (int64_t c = 0; c < columns; c += kLanes) {
      const int64_t width = std::min<int64_t>(kLanes, columns - c);
      Vec block[kLanes] = {};
      for (int64_t i = 0; i < height; ++i) block[i] = load_lanes(from + (r + i) * from_stride + c, width);
      transpose(block);
      for (int64_t i = 0; i < width; ++i) store_lanes(to + (c + i) * to_stride + r, block[i], height);
    }
  }
}

}  // namespace
}  // namespace msg_ms

// x (n,), settings (the input's shape, then the axes of the output) -> (n,)
MSG_MS_KERNEL(transpose) {
  using namespace msg_ms;
  const float *x = data(params, 0);
  float *y = data(params, 3);
  if (shapes[0][0] == 0) return 0;
  std::vector<Axis> axes = merged_axes(data(params, 1), shapes[1][0] / 2);
  const Axis last = axes.back();
  axes.pop_back();
  if (last.from == 1) {
    // The last axis remains: copy its rows.
    const int64_t rows = shapes[0][0] / last.length;
    parallel_for(rows, std::max<int64_t>(1, kMinElements / last.length), [&](int, int64_t begin, int64_t end) {
      for_each_entry(axes, begin, end,
                     [&](int64_t from, int64_t to) { std::memcpy(y + to, x + from, last.length * sizeof(float)); });
    });
    return 0;
  }
  // The input's last axis and the output's last axis form matrices. A piece is kLanes columns of one of them.
  const auto inner = std::find_if(axes.begin(), axes.end(), [](const Axis &axis) { return axis.from == 1; });
  const Axis columns = *inner;
  axes.erase(inner);
  axes.push_back({(columns.length + kLanes - 1) / kLanes, kLanes, kLanes * columns.to});
  const int64_t pieces = shapes[0][0] / (last.length * columns.length) * axes.back().length;
  parallel_for(pieces, std::max<int64_t>(1, kMinElements / (last.length * kLanes)),
               [&](int, int64_t begin, int64_t end) {
                 int64_t piece = begin;
                 for_each_entry(axes, begin, end, [&](int64_t from, int64_t to) {
                   const int64_t first = piece++ % axes.back().length * kLanes;
                   transpose_matrix(x + from, last.from, last.length, std::min<int64_t>(kLanes, columns.length - first),
                                    y + to, columns.to);
                 });
               });
  return 0;
}
