// Winograd's algorithm on channels-first maps: the factors of chunks of tiles, and the outputs from their products.
//
// winograd.h has the transforms. Tiles are processed in chunks, so that neither factors nor products reach main memory.
// A vector holds one pixel of kLanes channels; maps are transposed to that order and back piece by piece.
#pragma once

#include <algorithm>
#include <vector>

#include "base/kernel.h"
#include "conv/winograd.h"

namespace msg_ms {

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
inline void load_pixels(const float *from, int64_t stride, int64_t channels, int64_t n, float *to) {
  for (int64_t p = 0; p < n; p += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, n - p);
    Vec block[kLanes] = {};
    for (int64_t c = 0; c < channels; ++c) block[c] = load_lanes(from + c * stride + p, count);
    transpose(block);
    for (int64_t i = 0; i < count; ++i) store(to + (p + i) * kLanes, block[i]);
  }
}

// The reverse.
inline void store_pixels(const float *from, int64_t stride, int64_t channels, int64_t n, float *to) {
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
  int64_t images, height, width, lines, columns, tiles_of_chunk;

  explicit Tiles(const Maps &maps, int64_t chunk = kChunkTiles)
      : images(maps.images),
        height(maps.height),
        width(maps.width),
        lines((height + kTile - 1) / kTile),
        columns((width + kTile - 1) / kTile),
        tiles_of_chunk(chunk) {}

  int64_t all_lines() const { return images * lines; }
  int64_t chunk_lines() const { return std::max<int64_t>(1, tiles_of_chunk / columns); }
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
//
// load_products(tile, channel, square) loads the products of a tile for a vector of channels.
template <int kTile, typename LoadProducts>
void to_outputs(const Tiles<kTile> &tiles, const std::vector<Part> &parts, const LoadProducts &load_products,
                const float *bias, bool relu, const Maps &maps, float *y) {
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
        load_products(part.before + t, c, square);
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

}  // namespace msg_ms
