// Kernels of the 3x3 convolution with stride 1 and padding 1, and its gradients; see conv.py.
//
// Winograd's algorithm (tiles.h) makes one product of matrices for each of the (m + 2)^2 factors of a tile: tiles x
// inputs times inputs x outputs.

#include "conv/tiles.h"
#include "gemm/gemm.h"

namespace msg_ms {
namespace {

// A weight as a function of (output, input, position of the kernel).
struct Weight {
  const float *data;
  int64_t output_stride, input_stride;
  bool rotated;  // by 180 degrees, for the gradient of the input

  float at(int64_t output, int64_t input, int position) const {
    return data[output * output_stride + input * input_stride + (rotated ? 8 - position : position)];
  }
};

// Compute the factors of a weight as right-hand sides packed for gemm(), `stride` floats apart.
template <int kTile>
void transform_weight(const Weight &weight, int64_t inputs, int64_t outputs, int64_t stride, float *to) {
  constexpr int kSide = kTile + 2;
  const int64_t width = panel_width(outputs);
  parallel_for(inputs, 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t o = 0; o < round_up(outputs, width); o += kLanes) {
        Vec kernel[9] = {}, factors[kSide * kSide];
        for (int64_t lane = 0; lane < std::min<int64_t>(kLanes, outputs - o); ++lane) {
          for (int i = 0; i < 9; ++i) kernel[i][lane] = weight.at(o + lane, c, i);
        }
        transform_square<3, kSide>(kernel, factors, [](const Vec *g, Vec *u) { Winograd<kTile>::weight(g, u); });
        float *first = to + o / width * width * inputs + c * width + o % width;
        for (int i = 0; i < kSide * kSide; ++i) store(first + i * stride, factors[i]);
      }
    }
  });
}

template <int kTile>
void convolve(const Maps &in, const float *x, const Weight &weight, const float *bias, bool relu, const Maps &out,
              float *y) {
  using AllTiles = Tiles<kTile>;
  const AllTiles tiles(in);
  const int64_t inputs = in.channels, outputs = out.channels, tile_count = tiles.chunk_tiles();
  const int64_t weight_stride = round_up(outputs, panel_width(outputs)) * inputs;
  const Workspace weight_factors(AllTiles::kFactors * weight_stride);
  transform_weight<kTile>(weight, inputs, outputs, weight_stride, weight_factors);
  parallel_for_serial(tiles.all_lines(), [&](int64_t begin, int64_t end) {
    const Factors factors(AllTiles::kFactors, tile_count, inputs, false);
    const Factors products(AllTiles::kFactors, tile_count, outputs, true);
    tiles.for_each_chunk(begin, end, [&](const std::vector<Part> &parts, int64_t n) {
      to_factors<kTile, 1>(tiles, parts, in, x, factors, [](const Vec *d, Vec *v) { Winograd<kTile>::input(d, v); });
      for (int i = 0; i < AllTiles::kFactors; ++i) {
        gemm(n, outputs, inputs, matrix(factors.of(i), factors.row_stride),
             packed_panels(weight_factors + i * weight_stride), products.of(i));
      }
      const auto load_products = [&](int64_t tile, int64_t channel, Vec *square) MSG_MS_INLINE {
        const float *from = products.at(tile, channel);
#pragma GCC unroll 36
        for (int f = 0; f < AllTiles::kFactors; ++f) square[f] = load(from + f * products.stride);
      };
      to_outputs<kTile>(tiles, parts, load_products, bias, relu, out, y);
    });
  });
}

// Compute the gradient of the weight (outputs, inputs, 3, 3).
template <int kTile>
void weight_gradient(const Maps &in, const float *x, const Maps &out, const float *dout, float *dweight) {
  constexpr int kSide = kTile + 2, kFactors = kSide * kSide;
  const Tiles<kTile> tiles(in);
  const int64_t inputs = in.channels, outputs = out.channels, n_weight = inputs * outputs;
  const Workspace sums(num_threads() * kFactors * n_weight);
  std::vector<char> used(num_threads(), 0);
  parallel_for_serial(tiles.all_lines(), [&](int64_t begin, int64_t end) {
    const int thread = std::max(serial_thread(), 0);
    const Factors factors(kFactors, tiles.chunk_tiles(), inputs, false);
    const Factors gradients(kFactors, tiles.chunk_tiles(), outputs, false);
    tiles.for_each_chunk(begin, end, [&](const std::vector<Part> &parts, int64_t n) {
      to_factors<kTile, 1>(tiles, parts, in, x, factors, [](const Vec *d, Vec *v) { Winograd<kTile>::input(d, v); });
      to_factors<kTile, 0>(tiles, parts, out, dout, gradients,
                           [](const Vec *y, Vec *m) { Winograd<kTile>::output_transposed(y, m); });
      for (int i = 0; i < kFactors; ++i) {
        gemm(outputs, inputs, n, transposed(gradients.of(i), gradients.row_stride),
             matrix(factors.of(i), factors.row_stride), sums + (thread * kFactors + i) * n_weight, nullptr,
             used[thread]);
      }
      used[thread] = 1;
    });
  });
  parallel_for(n_weight, 1 << 10, [&](int, int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; ++e) {
      float total[kFactors] = {}, kernel[9];
      for (int thread = 0; thread < num_threads(); ++thread) {
        for (int i = 0; used[thread] && i < kFactors; ++i) total[i] += sums[(thread * kFactors + i) * n_weight + e];
      }
      transform_square<kSide, 3>(total, kernel,
                                 [](const float *u, float *g) { Winograd<kTile>::weight_transposed(u, g); });
      std::copy(kernel, kernel + 9, dweight + e * 9);
    }
  });
}

// The time that a factor of the weight needs by itself, for its transforms and its sums, in tiles.
constexpr int64_t kTilesOfWeight = 100;

// Return whether tiles of 4 x 4 outputs need less time than tiles of 2 x 2. Gradients may use them: their rounding
// errors are small, and no ReLU follows that could turn them into another gradient.
bool large_tiles_are_faster(const Maps &maps) {
  const Tiles<2> small(maps);
  const Tiles<4> large(maps);
  return Tiles<4>::kFactors * (large.all_lines() * large.columns + kTilesOfWeight) <
         Tiles<2>::kFactors * (small.all_lines() * small.columns + kTilesOfWeight);
}

void convolve_maps(void **params, int64_t **shapes, bool relu) {
  const Maps in(shapes[0]), out(shapes[4]);
  const Weight weight{data(params, 1), 9 * in.channels, 9, false};
  const auto run = data(params, 3)[0] == 4 ? convolve<4> : convolve<2>;
  run(in, data(params, 0), weight, data(params, 2), relu, out, data(params, 4));
}

}  // namespace
}  // namespace msg_ms

// x (B, C, H, W), weight (O, C, 3, 3), bias (O,), settings (side of a tile: 2 or 4) -> (B, O, H, W)
MSG_MS_KERNEL(conv3x3) {
  msg_ms::convolve_maps(params, shapes, false);
  return 0;
}

// The same with a ReLU.
MSG_MS_KERNEL(conv3x3_relu) {
  msg_ms::convolve_maps(params, shapes, true);
  return 0;
}

// weight (O, C, 3, 3), gradient of the output (B, O, H, W) -> gradient of x (B, C, H, W)
MSG_MS_KERNEL(conv3x3_grad_x) {
  using namespace msg_ms;
  const Maps out(shapes[1]), in(shapes[2]);
  const Weight weight{data(params, 0), 9, 9 * in.channels, true};
  const auto run = large_tiles_are_faster(out) ? convolve<4> : convolve<2>;
  run(out, data(params, 1), weight, nullptr, false, in, data(params, 2));
  return 0;
}

// x (B, C, H, W), gradient of the output (B, O, H, W) -> gradient of the weight (O, C, 3, 3)
MSG_MS_KERNEL(conv3x3_grad_weight) {
  using namespace msg_ms;
  const Maps in(shapes[0]), out(shapes[1]);
  const auto run = large_tiles_are_faster(out) ? weight_gradient<4> : weight_gradient<2>;
  run(in, data(params, 0), out, data(params, 1), data(params, 2));
  return 0;
}
