// Kernel of the 1x1 convolution on channels-first maps for inference in bfloat16; see packed_conv.py.
//
// It is one product, outputs x inputs times inputs x pixels of all images. Pairs of inputs are neighbours in the maps,
// so a panel of pixels is rounded without a transposition.

#include "gemm/gemm_bfloat16.h"

namespace msg_ms {
namespace {

constexpr int64_t kWidth = kMaxTileVectors * kLanes;  // pixels of a panel

// The pixels of all images, counted one after the other.
struct Pixels {
  int64_t count, of_image;

  // Call body(lane, offset, n) for each run of up to kLanes pixels from `first` in one image: n pixels at `offset` of
  // maps with this number of channels.
  template <typename Body>
  void for_each_run(int64_t first, int64_t channels, const Body &body) const {
    const int64_t lanes = std::min<int64_t>(kLanes, count - first);
    for (int64_t lane = 0, n; lane < lanes; lane += n) {
      const int64_t pixel = (first + lane) % of_image;
      n = std::min(lanes - lane, of_image - pixel);
      body(lane, (first + lane) / of_image * channels * of_image + pixel, n);
    }
  }

  // Whether a vector of pixels is in one piece.
  bool is_whole(int64_t first) const { return first + kLanes <= count && first % of_image + kLanes <= of_image; }
};

// Round the pixels from `first` to a panel of pairs.
void pack_pixels(const Pixels &pixels, int64_t first, int64_t channels, const float *x, float *panel) {
  for (int64_t v = 0; v < kWidth; v += kLanes) {
    const auto vector = [&](int64_t channel) {
      Vec result{};
      if (channel == channels) return result;
      pixels.for_each_run(first + v, channels, [&](int64_t lane, int64_t offset, int64_t n) {
        std::memcpy(reinterpret_cast<float *>(&result) + lane, x + offset + channel * pixels.of_image,
                    n * sizeof(float));
      });
      return result;
    };
    if (pixels.is_whole(first + v) && channels % 2 == 0) {
      pixels.for_each_run(first + v, channels, [&](int64_t, int64_t offset, int64_t) {
        const float *from = x + offset;
        for (int64_t pair = 0; pair < channels / 2; ++pair, from += 2 * pixels.of_image) {
          store(panel + pair * kWidth + v, BFloat16Arithmetic::round_pair(load(from), load(from + pixels.of_image)));
        }
      });
      continue;
    }
    for (int64_t pair = 0; pair < pair_count(channels); ++pair) {
      store(panel + pair * kWidth + v, BFloat16Arithmetic::round_pair(vector(2 * pair), vector(2 * pair + 1)));
    }
  }
}

// Add the bias to the sums of a panel, clip them at 0 if `relu`, and store them in the maps.
void store_pixels(const Pixels &pixels, int64_t first, int64_t channels, const float *sums, const float *bias,
                  bool relu, float *y) {
  for (int64_t o = 0; o < channels; ++o) {
    for (int64_t v = 0; v < kWidth; v += kLanes) {
      const Vec sum = load(sums + o * kWidth + v) + bias[o], clipped = sum < 0.0f ? Vec{} : sum;  // a NaN stays
      const Vec result = relu ? clipped : sum;
      if (pixels.is_whole(first + v)) {
        pixels.for_each_run(first + v, channels,
                            [&](int64_t, int64_t offset, int64_t) { store(y + offset + o * pixels.of_image, result); });
        continue;
      }
      pixels.for_each_run(first + v, channels, [&](int64_t lane, int64_t offset, int64_t n) {
        float *const to = y + offset + o * pixels.of_image;
        std::memcpy(to, reinterpret_cast<const float *>(&result) + lane, n * sizeof(float));
      });
    }
  }
}

void convolve(void **params, int64_t **shapes) {
  const int64_t inputs = shapes[0][1], outputs = shapes[1][0], image_pixels = shapes[0][2] * shapes[0][3];
  const Pixels pixels{shapes[0][0] * image_pixels, image_pixels};
  const float *const x = data(params, 0), *const bias = data(params, 2);
  const bool relu = data(params, 3)[0] != 0;
  const BFloat16Rows weight(outputs, inputs);
  for (int64_t o = 0; o < outputs; ++o) round_row(data(params, 1) + o * inputs, inputs, weight, o);
  parallel_for((pixels.count + kWidth - 1) / kWidth, 1, [&](int, int64_t begin, int64_t end) {
    const Workspace panel(weight.pairs * kWidth), sums(outputs * kWidth);
    const TileTarget target{nullptr, 0, sums, kWidth, kWidth};
    for (int64_t first = begin * kWidth; first < end * kWidth; first += kWidth) {
      pack_pixels(pixels, first, inputs, x, panel);
      multiply_panel<kMaxTileVectors, BFloat16Arithmetic>(
        outputs, weight.pairs, weight.row(0), weight.stride, 1, panel, kWidth, NoPrefetch(),
        [&](int64_t row, const auto &tile) MSG_MS_INLINE { store_tile<false>(tile, target.from_row(row)); });
      store_pixels(pixels, first, outputs, sums, bias, relu, data(params, 4));
    }
  });
}

}  // namespace
}  // namespace msg_ms

// x (B, C, H, W), weight (O, C, 1, 1), bias (O,), settings (1 for a ReLU) -> (B, O, H, W)
MSG_MS_KERNEL(conv1x1_bfloat16) {
  if (!msg_ms::has_bfloat16()) return 1;
  msg_ms::convolve(params, shapes);
  return 0;
}
