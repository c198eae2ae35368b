// Kernels of RoIAlign on feature maps of several levels, and its gradient with respect to the maps; see roi_align.py.
//
// Bilinear weights are products of a weight for y and a weight for x. So the mean over the samples of a bin is a
// weighted sum over rows, then over columns, and the sums over rows run along contiguous memory.

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/kernel.h"

namespace msg_ms {
namespace {

// The cells of one axis that a bin reads, first .. first + weights - 1.
struct Bin {
  int64_t first, count, weights;  // `weights` is an offset into AxisWeights::values
};

// The weights of all bins along one axis of one RoI.
struct AxisWeights {
  std::vector<Bin> bins;
  std::vector<float> values;
  int64_t first = 0, end = 0;  // all cells that the bins read

  AxisWeights(float low, float high, float scale, int64_t bin_count, int64_t size, int64_t fixed_samples) {
    const float start = low * scale - 0.5f, length = high * scale - 0.5f - start;
    const float bin = length / bin_count;
    // An overlong or NaN RoI would need endless samples; past two map sizes every further sample is outside.
    const float needed = std::ceil(bin);
    const int64_t most = 4 * (size + 2);
    const int64_t samples = fixed_samples > 0 ? fixed_samples : needed > 0 ? int64_t(std::min<float>(needed, most)) : 0;
    bins.reserve(bin_count);
    if (std::isnan(length)) {
      values.push_back(length);
      bins.assign(bin_count, Bin{0, 1, 0});
      end = 1;
      return;
    }
    first = size;
    for (int64_t i = 0; i < bin_count; ++i) add_bin(start + i * bin, bin, samples, size);
    if (first > end) first = end = 0;
  }

 private:
  void add_bin(float start, float length, int64_t samples, int64_t size) {
    Bin bin{size, 0, static_cast<int64_t>(values.size())};
    int64_t last = -1;
    for (int64_t i = 0; i < samples; ++i) {
      const int64_t sample = length < 0 ? samples - 1 - i : i;  // positions rise
      const float position = start + (sample + 0.5f) * length / samples;
      if (!(position >= -1.0f && position <= float(size))) continue;
      const float inside = std::max(position, 0.0f);
      const int64_t low = std::min<int64_t>(int64_t(inside), size - 1), high = std::min(low + 1, size - 1);
      if (bin.first == size) bin.first = low;
      last = std::max(last, high);
      values.resize(bin.weights + last - bin.first + 1, 0.0f);
      const float fraction = low < high ? inside - low : 0.0f;
      values[bin.weights + low - bin.first] += (1.0f - fraction) / samples;
      values[bin.weights + high - bin.first] += fraction / samples;
    }
    bin.count = last < 0 ? 0 : last - bin.first + 1;
    if (bin.count > 0) {
      first = std::min(first, bin.first);
      end = std::max(end, last + 1);
    }
    bins.push_back(bin);
  }
};

struct RoI {
  int64_t image, level;
  AxisWeights y, x;
};

struct Map {
  int64_t height, width;
  int64_t size() const { return height * width; }
};

// RoIs (R, 5), level of each (R,), settings [output side, samples a side or 0, scale of each level]
std::vector<RoI> find_rois(const float *rois, const float *levels, int64_t count, const float *settings,
                           const std::vector<Map> &maps, int64_t images) {
  std::vector<RoI> found;
  found.reserve(count);
  const int64_t side = int64_t(settings[0]), samples = int64_t(settings[1]);
  for (int64_t r = 0; r < count; ++r) {
    const float *box = rois + 5 * r;
    const int64_t level = std::clamp<int64_t>(int64_t(levels[r]), 0, int64_t(maps.size()) - 1);
    const int64_t image = std::clamp<int64_t>(int64_t(box[0]), 0, images - 1);
    const float scale = settings[2 + level];
    found.push_back({image, level, AxisWeights(box[2], box[4], scale, side, maps[level].height, samples),
                     AxisWeights(box[1], box[3], scale, side, maps[level].width, samples)});
  }
  return found;
}

// One RoI of one channel: map (height, width) -> out (side, side). `rows` is scratch of side * width.
void pool(const float *map, int64_t width, const RoI &roi, int64_t side, float *rows, float *out) {
  const int64_t first = roi.x.first, n = roi.x.end - first;
  for (int64_t i = 0; i < side; ++i) {
    const Bin &bin = roi.y.bins[i];
    float *row = rows + i * n;
    std::fill(row, row + n, 0.0f);
    for (int64_t k = 0; k < bin.count; ++k) {
      const float weight = roi.y.values[bin.weights + k];
      const float *from = map + (bin.first + k) * width + first;
#pragma omp simd
      for (int64_t x = 0; x < n; ++x) row[x] += weight * from[x];
    }
  }
  for (int64_t j = 0; j < side; ++j) {
    const Bin &bin = roi.x.bins[j];
    const float *weights = roi.x.values.data() + bin.weights;
    for (int64_t i = 0; i < side; ++i) {
      const float *row = rows + i * n + bin.first - first;
      float sum = 0.0f;
      for (int64_t k = 0; k < bin.count; ++k) sum += weights[k] * row[k];
      out[i * side + j] = sum;
    }
  }
}

// The gradient of pool: add to dmap (height, width).
void pool_grad(const float *dout, int64_t width, const RoI &roi, int64_t side, float *rows, float *dmap) {
  const int64_t first = roi.x.first, n = roi.x.end - first;
  std::fill(rows, rows + side * n, 0.0f);
  for (int64_t j = 0; j < side; ++j) {
    const Bin &bin = roi.x.bins[j];
    const float *weights = roi.x.values.data() + bin.weights;
    for (int64_t i = 0; i < side; ++i) {
      float *row = rows + i * n + bin.first - first;
      for (int64_t k = 0; k < bin.count; ++k) row[k] += weights[k] * dout[i * side + j];
    }
  }
  for (int64_t i = 0; i < side; ++i) {
    const Bin &bin = roi.y.bins[i];
    const float *row = rows + i * n;
    for (int64_t k = 0; k < bin.count; ++k) {
      const float weight = roi.y.values[bin.weights + k];
      float *to = dmap + (bin.first + k) * width + first;
#pragma omp simd
      for (int64_t x = 0; x < n; ++x) to[x] += weight * row[x];
    }
  }
}

struct Levels {
  std::vector<Map> maps;
  int64_t images, channels, widest = 0;

  Levels(int64_t **shapes, int count) : images(shapes[0][0]), channels(shapes[0][1]) {
    for (int i = 0; i < count; ++i) {
      maps.push_back({shapes[i][2], shapes[i][3]});
      widest = std::max(widest, shapes[i][3]);
    }
  }
};

}  // namespace
}  // namespace msg_ms

// maps of L levels (B, C, H, W), RoIs (R, 5), levels (R,), settings -> (R, C, side, side)
MSG_MS_KERNEL(roi_align) {
  using namespace msg_ms;
  const int level_count = count - 4;
  const Levels levels(shapes, level_count);
  const float *settings = data(params, level_count + 2);
  const int64_t roi_count = shapes[level_count][0], side = int64_t(settings[0]), channels = levels.channels;
  const auto rois = find_rois(data(params, level_count), data(params, level_count + 1), roi_count, settings,
                              levels.maps, levels.images);
  float *out = data(params, level_count + 3);
  // Channel by channel, so that a map stays in the cache for all RoIs.
  parallel_for(channels, 1, [&](int, int64_t begin, int64_t end) {
    std::vector<float> rows(side * levels.widest);
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t r = 0; r < roi_count; ++r) {
        const RoI &roi = rois[r];
        const Map &map = levels.maps[roi.level];
        const float *from = data(params, int(roi.level)) + (roi.image * channels + c) * map.size();
        pool(from, map.width, roi, side, rows.data(), out + (r * channels + c) * side * side);
      }
    }
  });
  return 0;
}

// maps of L levels (for their shapes), RoIs, levels, settings, gradient of the output -> gradients of the maps
MSG_MS_KERNEL(roi_align_grad) {
  using namespace msg_ms;
  const int level_count = (count - 4) / 2;
  const Levels levels(shapes, level_count);
  const float *settings = data(params, level_count + 2), *dout = data(params, level_count + 3);
  const int64_t roi_count = shapes[level_count][0], side = int64_t(settings[0]), channels = levels.channels;
  const auto rois = find_rois(data(params, level_count), data(params, level_count + 1), roi_count, settings,
                              levels.maps, levels.images);
  const int first_output = level_count + 4;
  // Each channel belongs to one thread: no two threads add to the same element, and the order of the sums is fixed.
  parallel_for(channels, 1, [&](int, int64_t begin, int64_t end) {
    std::vector<float> rows(side * levels.widest);
    for (int64_t c = begin; c < end; ++c) {
      for (int level = 0; level < level_count; ++level) {
        const int64_t n = levels.maps[level].size();
        for (int64_t b = 0; b < levels.images; ++b) {
          std::memset(data(params, first_output + level) + (b * channels + c) * n, 0, n * sizeof(float));
        }
      }
      for (int64_t r = 0; r < roi_count; ++r) {
        const RoI &roi = rois[r];
        const Map &map = levels.maps[roi.level];
        float *to = data(params, first_output + int(roi.level)) + (roi.image * channels + c) * map.size();
        pool_grad(dout + (r * channels + c) * side * side, map.width, roi, side, rows.data(), to);
      }
    }
  });
  return 0;
}
