// Kernels of the 3x3 convolution with stride 1 and padding 1, and its gradients; see conv.py.
//
// Winograd's algorithm (winograd.h) makes one product of matrices for each of the (m + 2)^2 factors of a tile: tiles x
// inputs times inputs x outputs. Tiles are processed in chunks, so that neither factors nor products reach main memory.
// A vector holds one pixel of kLanes channels; maps are transposed to that order and back piece by piece.

#include <algorithm>
#include <vector>

#include "base/kernel.h"
#include "conv/winograd.h"
#include "gemm/gemm.h"

namespace msg_ms {
namespace {

constexpr int64_t kChunkTiles = 96;  // tiles of a chunk, about

// Channels-first maps (images, channels, height, width), one pixel of a vector of channels at a time.
struct Maps {
  int64_t images, channels, height, width;

  explicit Maps(const int64_t *shape) : images(shape[0]), channels(shape[1]), height(shape[2]), width(shape[3]) {}

  int64_t pixels() const { return height * width; }
  int64_t offset(int64_t image, int64_t channel, int64_t row) const {
    return ((image * channels + channel) * height + row) * width;
  }
};

// Copy n pixels of up to kLanes channels, which are `stride` floats apart, to vectors of one pixel each.
void load_pixels(const float *from, int64_t stride, int64_t channels, int64_t n, float *to) {
  for (int64_t p = 0; p < n; p += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, n - p);
    Vec block[kLanes] = {};
    for (int64_t c = 0; c < channels; ++c) block[c] = load_lanes(from + c * stride + p, count);
    transpose(block);
    for (int64_t i = 0; i < count; ++i) store(to + (p + i) * kLanes, block[i]);
  }
}

// The reverse.
void store_pixels(const float *from, int64_t stride, int64_t channels, int64_t n, float *to) {
  for (int64_t p = 0; p < n; p += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, n - p);
    Vec block[kLanes] = {};
    for (int64_t i = 0; i < count; ++i) block[i] = load(from + (p + i) * kLanes);
    transpose(block);
    for (int64_t c = 0; c < channels; ++c) store_lanes(to + c * stride + p, block[c], count);
  }
}

// Some lines of tiles of one image: lines [first, end), `before` tiles after the beginning of their chunk.
struct Part {
  int64_t image, first, end, before;
};

// The tiles of maps, in lines of tiles.
template <int kTile>
struct Tiles {
  static constexpr int kSide = kTile + 2, kFactors = kSide * kSide;
  int64_t images, height, width, lines, columns;

  explicit Tiles(const Maps &maps)
      : images(maps.images),
        height(maps.height),
        width(maps.width),
        lines((height + kTile - 1) / kTile),
        columns((width + kTile - 1) / kTile) {}

  int64_t all_lines() const { return images * lines; }
  int64_t chunk_lines() const { return std::max<int64_t>(1, kChunkTiles / columns); }
  int64_t chunk_tiles() const { return chunk_lines() * columns; }

  // Call body(parts, tiles) for chunks of lines [begin, end) of all images.
  template <typename Body>
  void for_each_chunk(int64_t begin, int64_t end, const Body &body) const {
    std::vector<Part> parts;
    while (begin < end) {
      const int64_t last = std::min(begin + chunk_lines(), end);
      int64_t tiles = 0;
      for (parts.clear(); begin < last;) {
        const int64_t image = begin / lines, stop = std::min(last, (image + 1) * lines);
        parts.push_back({image, begin - image * lines, stop - image * lines, tiles});
        tiles += (stop - begin) * columns;
        begin = stop;
      }
      body(parts, tiles);
    }
  }

  // Rows of the maps that tiles with `border` more pixels around cover.
  int64_t first_row(const Part &part, int border) const { return std::max<int64_t>(0, part.first * kTile - border); }
  int64_t end_row(const Part &part, int border) const { return std::min(height, part.end * kTile + border); }
  int64_t max_pixels() const { return (chunk_lines() + 1) * (kTile + 2) * width; }

  // Return for each tile of a part, and each of its pixels with `border` more around, the offset of the pixel's vector
  // behind the part's first row. Pixels outside the map are all at `outside`.
  std::vector<int32_t> offsets(const Part &part, int border, int64_t outside) const {
    std::vector<int32_t> found;
    found.reserve((part.end - part.first) * columns * (kTile + 2 * border) * (kTile + 2 * border));
    const int64_t top = first_row(part, border);
    for (int64_t line = part.first; line < part.end; ++line) {
      for (int64_t column = 0; column < columns; ++column) {
        for (int64_t y = line * kTile - border; y < (line + 1) * kTile + border; ++y) {
          for (int64_t x = column * kTile - border; x < (column + 1) * kTile + border; ++x) {
            const bool inside = y >= 0 && y < height && x >= 0 && x < width;
            found.push_back(inside ? ((y - top) * width + x) * kLanes : outside * kLanes);
          }
        }
      }
    }
    return found;
  }
};

// The factors or products of a chunk: for each of kFactors a matrix (tiles, channels).
struct Factors {
  int64_t row_stride, stride;
  Workspace data;

  // One vector more than needed, so that equal channels of all factors and tiles don't compete for the same cache
  // lines.
  Factors(int64_t factors, int64_t tiles, int64_t channels, bool contiguous)
      : row_stride(contiguous ? channels : round_up(channels, kLanes) + kLanes),
        stride(round_up(tiles * row_stride, kLanes) + kLanes),
        data(factors * stride + kLanes) {}

  float *of(int64_t factor) const { return data + factor * stride; }
  float *at(int64_t tile, int64_t channel) const { return data + tile * row_stride + channel; }
};

// Compute the factors of a chunk's tiles: of tiles with a border (`border` = 1, the inputs) or of the tiles alone
// (`border` = 0, gradients of the outputs).
template <int kTile, int border, typename Transform>
void to_factors(const Tiles<kTile> &tiles, const std::vector<Part> &parts, const Maps &maps, const float *x,
                const Factors &factors, const Transform &transform) {
  constexpr int kSide = kTile + 2, kFrom = kTile + 2 * border;
  const Workspace pixels((tiles.max_pixels() + 1) * kLanes);
  for (const Part &part : parts) {
    const int64_t row = tiles.first_row(part, border), n = (tiles.end_row(part, border) - row) * maps.width;
    const std::vector<int32_t> offsets = tiles.offsets(part, border, n);
    store(pixels + n * kLanes, Vec{});
    for (int64_t c = 0; c < maps.channels; c += kLanes) {
      const int64_t channels = std::min<int64_t>(kLanes, maps.channels - c);
      load_pixels(x + maps.offset(part.image, c, row), maps.pixels(), channels, n, pixels);
      const int32_t *offset = offsets.data();
      for (int64_t t = 0; t < (part.end - part.first) * tiles.columns; ++t, offset += kFrom * kFrom) {
        Vec patch[kFrom * kFrom], result[kSide * kSide];
#pragma GCC unroll 36
        for (int i = 0; i < kFrom * kFrom; ++i) patch[i] = load(pixels + offset[i]);
        transform_square<kFrom, kSide>(patch, result, transform);
        float *to = factors.at(part.before + t, c);
#pragma GCC unroll 36
        for (int i = 0; i < kSide * kSide; ++i) store(to + i * factors.stride, result[i]);
      }
    }
  }
}

// Compute the outputs of a chunk's tiles from the products, and add the bias; clip at 0 if `relu`. A NaN stays. An
// infinity may come out of the transforms with either sign, so a negative one becomes a NaN.
template <int kTile>
void to_outputs(const Tiles<kTile> &tiles, const std::vector<Part> &parts, const Factors &products, const float *bias,
                bool relu, const Maps &maps, float *y) {
  constexpr int kSide = kTile + 2;
  const Workspace pixels((tiles.max_pixels() + 1) * kLanes);
  for (const Part &part : parts) {
    const int64_t row = tiles.first_row(part, 0), n = (tiles.end_row(part, 0) - row) * maps.width;
    const std::vector<int32_t> offsets = tiles.offsets(part, 0, n);
    for (int64_t c = 0; c < maps.channels; c += kLanes) {
      const int64_t channels = std::min<int64_t>(kLanes, maps.channels - c);
      const Vec shift = bias == nullptr ? Vec{} : load_lanes(bias + c, channels);
      const int32_t *offset = offsets.data();
      for (int64_t t = 0; t < (part.end - part.first) * tiles.columns; ++t, offset += kTile * kTile) {
        Vec square[kSide * kSide], result[kTile * kTile];
        const float *from = products.at(part.before + t, c);
#pragma GCC unroll 36
        for (int i = 0; i < kSide * kSide; ++i) square[i] = load(from + i * products.stride);
        transform_square<kSide, kTile>(square, result, [](const Vec *m, Vec *out) { Winograd<kTile>::output(m, out); });
#pragma GCC unroll 16
        for (int i = 0; i < kTile * kTile; ++i) {
          const Vec value = result[i] + shift;
          store(pixels + offset[i], relu ? (value < 0.0f ? value * 0.0f : value) : value);
        }
      }
      store_pixels(pixels, maps.pixels(), channels, n, y + maps.offset(part.image, c, row));
    }
  }
}

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
      to_outputs<kTile>(tiles, parts, products, bias, relu, out, y);
    });
  });
}

// Compute the gradient of the weight (outputs, inputs, 3, 3).
void weight_gradient(const Maps &in, const float *x, const Maps &out, const float *dout, float *dweight) {
  constexpr int kFactors = 16;
  const Tiles<2> tiles(in);
  const int64_t inputs = in.channels, outputs = out.channels, n_weight = inputs * outputs;
  const Workspace sums(num_threads() * kFactors * n_weight);
  std::vector<char> used(num_threads(), 0);
  parallel_for_serial(tiles.all_lines(), [&](int64_t begin, int64_t end) {
    const int thread = std::max(serial_thread(), 0);
    const Factors factors(kFactors, tiles.chunk_tiles(), inputs, false);
    const Factors gradients(kFactors, tiles.chunk_tiles(), outputs, false);
    tiles.for_each_chunk(begin, end, [&](const std::vector<Part> &parts, int64_t n) {
      to_factors<2, 1>(tiles, parts, in, x, factors, [](const Vec *d, Vec *v) { Winograd<2>::input(d, v); });
      to_factors<2, 0>(tiles, parts, out, dout, gradients,
                       [](const Vec *y, Vec *m) { Winograd<2>::output_transposed(y, m); });
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
      transform_square<4, 3>(total, kernel, [](const float *u, float *g) { Winograd<2>::weight_transposed(u, g); });
      std::copy(kernel, kernel + 9, dweight + e * 9);
    }
  });
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
  convolve<2>(out, data(params, 1), weight, nullptr, false, in, data(params, 2));
  return 0;
}

// x (B, C, H, W), gradient of the output (B, O, H, W) -> gradient of the weight (O, C, 3, 3)
MSG_MS_KERNEL(conv3x3_grad_weight) {
  using namespace msg_ms;
  weight_gradient(Maps(shapes[0]), data(params, 0), Maps(shapes[1]), data(params, 1), data(params, 2));
  return 0;
}
