// Kernel of the 3x3 convolution for inference in bfloat16, and the packing of its weight; see packed_conv.py.
//
// Winograd's algorithm with tiles of 4 x 4 outputs, with products of 16-bit integers (micro_kernel_int16.h). The
// transforms would multiply bfloat16's rounding errors by 4. Each row of factors, those of one tile at one position for
// all inputs, has a scale of its own, and so has each output's row of the weight. Rounding errors are a third of
// those of the convolution's definition in bfloat16.

#include "conv/tiles.h"
#include "gemm/gemm_bfloat16.h"
#include "gemm/gemm_common.h"
#include "gemm/micro_kernel_int16.h"

namespace msg_ms {
namespace {

constexpr int kTile = 4;
using AllTiles = Tiles<kTile>;
constexpr int kFactors = AllTiles::kFactors;
// Fewer than in single precision: the products need half the time, and so the transforms' memory counts more.
constexpr int64_t kRoundedChunkTiles = 32;

// A packed weight: for each factor its panels of pairs, then for each factor the scale of each output.
struct PackedWeight {
  int64_t pairs, columns, stride;

  PackedWeight(int64_t inputs, int64_t outputs)
      : pairs(pair_count(inputs)), columns(round_up(outputs, 64)), stride(columns * pairs) {}

  template <typename Float>
  Float *panels(Float *packed, int factor) const {
    return packed + factor * stride;
  }
  template <typename Float>
  Float *scales(Float *packed, int factor) const {
    return packed + kFactors * stride + factor * columns;
  }
};

void pack_weight(int64_t inputs, int64_t outputs, const float *weight, float *packed) {
  const PackedWeight layout(inputs, outputs);
  const int64_t width = tile_vectors(outputs) * kLanes;
  std::memset(packed, 0, kFactors * (layout.stride + layout.columns) * sizeof(float));
  parallel_for(outputs, 1, [&](int, int64_t begin, int64_t end) {
    const Workspace factors(kFactors * inputs);
    for (int64_t o = begin; o < end; ++o) {
      for (int64_t c = 0; c < inputs; ++c) {
        float factor[kFactors];
        transform_square<3, AllTiles::kSide>(weight + (o * inputs + c) * 9, factor,
                                             [](const float *g, float *u) { Winograd<kTile>::weight(g, u); });
        for (int i = 0; i < kFactors; ++i) factors[i * inputs + c] = factor[i];
      }
      for (int i = 0; i < kFactors; ++i) {
        const float *const row = factors + i * inputs;
        float squares = 0.0f, largest = 0.0f;
        for (int64_t c = 0; c < inputs; ++c) squares += row[c] * row[c], largest = std::max(largest, std::abs(row[c]));
        // A single number may be 32767 at most.
        const Scale scale(std::max(std::sqrt(squares), 2.0f * largest), column_norm_limit(inputs));
        layout.scales(packed, i)[o] = scale.inverse;
        Int16 *const column =
          reinterpret_cast<Int16 *>(layout.panels(packed, i) + o / width * width * layout.pairs + o % width);
        for (int64_t c = 0; c < inputs; ++c) {
          column[c / 2 * 2 * width + c % 2] = round_to_int16(Vec{} + row[c], scale.factor)[0];
        }
      }
    }
  });
}

// Round n rows of factors in place, and write the inverse scale of row t to scales[t * kFactors].
void round_rows(const Factors &factors, int factor, int64_t n, int64_t inputs, float *scales) {
  const int64_t width = round_up(inputs, kLanes);  // the rest is zeros
  const float limit = row_norm_limit(inputs);
  for (int64_t t = 0; t < n; ++t) {
    float *const row = factors.of(factor) + t * factors.row_stride;
    Vec squares[2] = {};
    for (int64_t c = 0; c < width; c += kLanes) {
      const Vec v = load(row + c);
      squares[c / kLanes % 2] += v * v;
    }
    const Scale scale(std::sqrt(horizontal_sum(squares[0] + squares[1])), limit);
    scales[t * kFactors] = scale.inverse;
    Int16 *const to = reinterpret_cast<Int16 *>(row);
    for (int64_t c = 0; c < width; c += kLanes) {
      const Int16Vec rounded = round_to_int16(load(row + c), scale.factor);
      std::memcpy(to + c, &rounded, sizeof(rounded));
    }
  }
}

// Multiply n rounded rows of a factor by its packed weight: sums of 32 bits.
void multiply(const Factors &factors, int factor, int64_t n, const PackedWeight &layout, const float *packed,
              int64_t outputs, const Factors &products) {
  with_tile_vectors(outputs, [&](auto vectors) {
    constexpr int64_t kWidth = vectors * kLanes;
    for (int64_t p = 0; p < outputs; p += kWidth) {
      const float *const panel = layout.panels(packed, factor) + p * layout.pairs;
      const float *const next =
        p + kWidth < outputs ? panel + kWidth * layout.pairs : layout.panels(packed, (factor + 1) % kFactors);
      const PanelPrefetch prefetch(next, kWidth, (n + tile_rows(vectors) - 1) / tile_rows(vectors));
      const TileTarget target{nullptr, 0, products.of(factor) + p, products.row_stride, std::min(kWidth, outputs - p)};
      multiply_panel<vectors, Int16Arithmetic>(
        n, layout.pairs, factors.of(factor), factors.row_stride, 1, panel, kWidth, prefetch,
        [&](int64_t row, const auto &tile) MSG_MS_INLINE { store_tile<false>(tile, target.from_row(row)); });
    }
  });
}

void convolve(const Maps &in, const float *x, const float *packed, const float *bias, bool relu, const Maps &out,
              float *y) {
  const AllTiles tiles(in, kRoundedChunkTiles);
  const int64_t inputs = in.channels, outputs = out.channels, tile_count = tiles.chunk_tiles();
  const PackedWeight layout(inputs, outputs);
  parallel_for_serial(tiles.all_lines(), [&](int64_t begin, int64_t end) {
    const Factors factors(kFactors, tile_count, inputs, false), products(kFactors, tile_count, outputs, false);
    const Workspace scales(tile_count * kFactors);
    tiles.for_each_chunk(begin, end, [&](const std::vector<Part> &parts, int64_t n) {
      to_factors<kTile, 1>(tiles, parts, in, x, factors, [](const Vec *d, Vec *v) { Winograd<kTile>::input(d, v); });
      for (int i = 0; i < kFactors; ++i) {
        round_rows(factors, i, n, inputs, scales + i);
        multiply(factors, i, n, layout, packed, outputs, products);
      }
      const auto load_products = [&](int64_t tile, int64_t channel, Vec *square) MSG_MS_INLINE {
        const float *from = products.at(tile, channel), *rows = scales + tile * kFactors;
#pragma GCC unroll 36
        for (int i = 0; i < kFactors; ++i) {
          const Vec sum = __builtin_convertvector((IntVec)load(from + i * products.stride), Vec);
          square[i] = sum * (rows[i] * load(layout.scales(packed, i) + channel));
        }
      };
      to_outputs<kTile>(tiles, parts, load_products, bias, relu, out, y);
    });
  });
}

}  // namespace
}  // namespace msg_ms

// weight (O, C, 3, 3) -> packed weight (36 * O rounded up to 64 * (C / 2 rounded up + 1),)
MSG_MS_KERNEL(pack_conv3x3_int16) {
  msg_ms::pack_weight(shapes[0][1], shapes[0][0], msg_ms::data(params, 0), msg_ms::data(params, 1));
  return 0;
}

// x (B, C, H, W), packed weight, bias (O,), settings (1 for a ReLU) -> (B, O, H, W)
MSG_MS_KERNEL(conv3x3_int16) {
  using namespace msg_ms;
  if (!has_bfloat16()) return 1;
  convolve(Maps(shapes[0]), data(params, 0), data(params, 1), data(params, 2), data(params, 3)[0] != 0, Maps(shapes[4]),
           data(params, 4));
  return 0;
}
