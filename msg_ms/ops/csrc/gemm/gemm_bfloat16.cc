// GEMM in bfloat16; see gemm_bfloat16.h.

#include "gemm/gemm_bfloat16.h"

#include "base/gelu.h"
#include "gemm/gemm_common.h"

namespace msg_ms {

bool has_bfloat16() {
#if MSG_MS_BFLOAT16
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
#elif defined(MSG_MS_PORTABLE_BFLOAT16)
  return true;
#else
  return false;
#endif
}

void pack_bfloat16(int64_t depth, int64_t columns, const float *weight, float *to) {
  const int64_t pairs = pair_count(depth), width = tile_vectors(columns) * kLanes;
  parallel_for((columns + width - 1) / width, 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t p = begin * width; p < end * width; p += width) {
      float *const panel = to + p * pairs;
      std::memset(panel, 0, pairs * width * sizeof(float));
      for (int64_t j = 0; j < std::min(width, columns - p); ++j) {
        const float *from = weight + (p + j) * depth;
        BFloat16 *column = reinterpret_cast<BFloat16 *>(panel + j);
        for (int64_t k = 0; k < depth; ++k) {
          column[k / 2 * 2 * width + k % 2] = PortableBFloat16::round(Vec{} + from[k])[0];
        }
      }
    }
  });
}

namespace {

const PolynomialsOfGelu<2, false> kShortGelu(7.0f);

// GELU for results that are rounded to bfloat16: absolute error 2e-5, relative error 9e-5 for |x| < 1, against 2e-3 of
// the rounding.
MSG_MS_INLINE inline Vec short_gelu(Vec x) {
  const Vec magnitude = (Vec)((IntVec)x & 0x7fffffff);
  Vec a = kShortGelu.end < magnitude ? Vec{} + kShortGelu.end : magnitude;
  const IntVec interval = kShortGelu.select(a);
  Vec h = BFloat16Arithmetic::lookup(kShortGelu.coefficients[2], interval);
  h = h * a + BFloat16Arithmetic::lookup(kShortGelu.coefficients[1], interval);
  h = h * a + BFloat16Arithmetic::lookup(kShortGelu.coefficients[0], interval);
  return (x + magnitude) * 0.5f - h;
}

// Finish `lanes` entries from (i, j), to which the bias is added already.
template <ProductTarget::Kind kind>
MSG_MS_INLINE inline void finish(const ProductTarget &target, int64_t i, int64_t j, Vec entries, int64_t lanes) {
  const int64_t at = i * target.stride + j;
  switch (kind) {
    case ProductTarget::kStore: return store_lanes(target.to + at, entries, lanes);
    case ProductTarget::kResidual:
      return store_lanes(target.to + at, load_lanes(target.addend + at, lanes) + entries, lanes);
    case ProductTarget::kRound: return store_rounded(target.rounded->at(i, j), entries, lanes);
    case ProductTarget::kGelu: return store_rounded(target.rounded->at(i, j), short_gelu(entries), lanes);
  }
}

// Call body with the kind of the target as a compile-time constant.
template <typename Body>
MSG_MS_INLINE inline void with_kind(ProductTarget::Kind kind, const Body &body) {
  switch (kind) {
    case ProductTarget::kStore: return body(std::integral_constant<ProductTarget::Kind, ProductTarget::kStore>());
    case ProductTarget::kResidual: return body(std::integral_constant<ProductTarget::Kind, ProductTarget::kResidual>());
    case ProductTarget::kRound: return body(std::integral_constant<ProductTarget::Kind, ProductTarget::kRound>());
    case ProductTarget::kGelu: return body(std::integral_constant<ProductTarget::Kind, ProductTarget::kGelu>());
  }
}

// Finish a tile at the right edge from a copy in memory. Not inlined, so that full tiles stay in registers.
__attribute__((noinline)) void finish_partial_tile(const ProductTarget &target, const float *tile,
                                                   int64_t tile_row_stride, int64_t row, int64_t rows, int64_t column,
                                                   int64_t columns) {
  with_kind(target.kind, [&](auto kind) {
    for (int64_t r = 0; r < rows; ++r) {
      for_each_vector(columns, [&](int64_t c, int64_t lanes) {
        finish<kind>(target, row + r, column + c, load(tile + r * tile_row_stride + c), lanes);
      });
    }
  });
}

template <int kRows, int kVectors>
MSG_MS_INLINE inline void finish_tile(const ProductTarget &target, const Vec (&tile)[kRows][kVectors], int64_t row,
                                      int64_t column, int64_t columns) {
  if (columns < kVectors * kLanes) {
    Vec copy[kRows][kVectors];
    std::memcpy(copy, tile, sizeof(copy));
    return finish_partial_tile(target, reinterpret_cast<const float *>(copy), kVectors * kLanes, row, kRows, column,
                               columns);
  }
  with_kind(target.kind, [&](auto kind) MSG_MS_INLINE {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) finish<kind>(target, row + r, column + v * kLanes, tile[r][v], kLanes);
    }
  });
}

}  // namespace

void gemm_bfloat16(int64_t rows, int64_t columns, const BFloat16Rows &a, const float *packed,
                   const ProductTarget &target) {
  with_tile_vectors(columns, [&](auto vectors) {
    constexpr int64_t kRows = tile_rows(vectors), kWidth = vectors * kLanes;
    const int64_t pairs = a.pairs;
    split_among_threads(
      useful_threads(rows, columns, pairs), rows, kRows, columns, kWidth,
      [&](int, int64_t i, int64_t i_end, int64_t j, int64_t j_end) {
        for (int64_t p = j; p < j_end; p += kWidth) {
          const float *panel = packed + p * pairs;
          const float *const next = p + kWidth < j_end ? panel + pairs * kWidth : packed + j * pairs;
          const PanelPrefetch prefetch(next, kWidth, (i_end - i + kRows - 1) / kRows);
          const int64_t width = std::min(kWidth, columns - p);
          Vec bias[vectors] = {};
          if (target.bias != nullptr) {
            const float *const from = target.bias + p;
            for_each_vector(width, [&](int64_t c, int64_t lanes) { bias[c / kLanes] = load_lanes(from + c, lanes); });
          }
          multiply_panel<vectors, BFloat16Arithmetic>(
            i_end - i, pairs, a.row(i), a.stride, 1, panel, kWidth, prefetch,
            [&](int64_t row, const auto &tile) MSG_MS_INLINE { finish_tile(target, tile, i + row, p, width); }, bias);
        }
      });
  });
}

}  // namespace msg_ms
