// Assignment of anchors to ground-truth boxes. The definition is in boxes/anchor_assigner.py; the order of operations
// in single precision is that of the definition, as it decides ties.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include "runs.h"

namespace boxes {
namespace {

constexpr float kLeastArea = 1e-6f;
constexpr double kSlack = 1e-3;  // relative, and in pixels: more than the rounding of single precision

// Anchors of one level and ratio: columns share x1 and x2, rows share y1 and y2.
struct Grid {
  int64_t first, rows, columns, ratio, ratios;
};

struct Match {
  int64_t anchor;
  float iou;
};

struct Range {
  int64_t begin, end;
};

// The part of `range` whose anchors reach beyond `after` and begin before `before`; both ends rise with the index.
template <typename Low, typename High>
Range between(Range range, Low low, High high, double after, double before) {
  while (range.begin < range.end && !(high(range.begin) >= after)) ++range.begin;
  while (range.begin < range.end && !(low(range.end - 1) <= before)) --range.end;
  return range;
}

}  // namespace
}  // namespace boxes

// Assign `anchors` (A, 4), which consist of `grids`, inside an image of height x width to `count` boxes `gt`: 0 below
// an IoU of `negative`, k + 1 from `positive` on, and for the largest IoU of each box from `least` on; else -1.
// Returns 0, or 1 without memory.
EXPORT int assign_anchors(const float *anchors, int64_t total, const int64_t *layout, int n_grids, const float *gt,
                          int count, double height, double width, double positive, double negative, double least,
                          int32_t *assigned) try {
  using namespace boxes;
  std::fill(assigned, assigned + total, -1);
  std::vector<float> best(total);
  std::vector<int32_t> best_gt(total);
  std::vector<std::vector<Match>> matches(count);
  const double lowest = std::min(negative, least);
  for (int g = 0; g < n_grids; ++g, layout += 5) {
    const Grid grid{layout[0], layout[1], layout[2], layout[3], layout[4]};
    const auto index = [&](int64_t row, int64_t column) {
      return grid.first + (row * grid.columns + column) * grid.ratios + grid.ratio;
    };
    const auto left = [&](int64_t column) { return anchors[4 * index(0, column)]; };
    const auto right = [&](int64_t column) { return anchors[4 * index(0, column) + 2]; };
    const auto top = [&](int64_t row) { return anchors[4 * index(row, 0) + 1]; };
    const auto bottom = [&](int64_t row) { return anchors[4 * index(row, 0) + 3]; };
    // Strictly below the image's sides, as mmdetection has it.
    Range rows{0, grid.rows}, columns{0, grid.columns};
    while (rows.begin < rows.end && top(rows.begin) < 0) ++rows.begin;
    while (rows.begin < rows.end && bottom(rows.end - 1) >= height) --rows.end;
    while (columns.begin < columns.end && left(columns.begin) < 0) ++columns.begin;
    while (columns.begin < columns.end && right(columns.end - 1) >= width) --columns.end;
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t column = columns.begin; column < columns.end; ++column) assigned[index(row, column)] = 0;
    if (rows.begin >= rows.end || columns.begin >= columns.end) continue;
    const double anchor_width = right(0) - left(0), anchor_height = bottom(0) - top(0);
    for (int k = 0; k < count; ++k) {
      const float *box = gt + 4 * k;
      const float box_width = box[2] - box[0], box_height = box[3] - box[1];
      // IoU >= lowest means an intersection of at least this area, so of at least these sides.
      const double area =
        lowest * (1 - kSlack) / (1 + lowest) * (anchor_width * anchor_height + double{box_width} * double{box_height});
      const double common_width = std::min<double>(anchor_width, box_width);
      const double common_height = std::min<double>(anchor_height, box_height);
      if (!(common_width > 0 && common_height > 0 && common_width * common_height >= area)) continue;
      const double across = area / common_height - kSlack, down = area / common_width - kSlack;
      const Range near_rows = between(rows, top, bottom, box[1] + down, box[3] - down);
      const Range near_columns = between(columns, left, right, box[0] + across, box[2] - across);
      for (int64_t row = near_rows.begin; row < near_rows.end; ++row) {
        const float y1 = top(row), y2 = bottom(row),
                    common_y = std::max(std::min(y2, box[3]) - std::max(y1, box[1]), 0.0f);
        for (int64_t column = near_columns.begin; column < near_columns.end; ++column) {
          const float x1 = left(column), x2 = right(column);
          const float common_x = std::max(std::min(x2, box[2]) - std::max(x1, box[0]), 0.0f);
          const float overlap = common_x * common_y;
          const float both = box_width * box_height + (x2 - x1) * (y2 - y1) - overlap;
          const float iou = overlap / std::max(both, kLeastArea);
          if (!(iou >= static_cast<float>(lowest))) continue;
          matches[k].push_back({index(row, column), iou});
        }
      }
    }
  }
  for (int k = 0; k < count; ++k)
    for (const Match &match : matches[k])
      if (match.iou > best[match.anchor]) {
        best[match.anchor] = match.iou;
        best_gt[match.anchor] = k;
      }
  const float low = static_cast<float>(negative), high = static_cast<float>(positive);
  for (const auto &own : matches)
    for (const Match &match : own) {
      const float iou = best[match.anchor];
      assigned[match.anchor] = iou < low ? 0 : iou >= high ? best_gt[match.anchor] + 1 : -1;
    }
  for (int k = 0; k < count; ++k) {
    float largest = 0.0f;
    for (const Match &match : matches[k]) largest = std::max(largest, match.iou);
    if (!(largest >= static_cast<float>(least))) continue;
    for (const Match &match : matches[k])
      if (match.iou == largest) assigned[match.anchor] = k + 1;
  }
  return 0;
} catch (const std::bad_alloc &) {
  return 1;
}
