// The products of training kernels in three precisions: the class `Products` of their templates.
//
// Arrays are in single precision; only the operands of a product differ. SingleProducts multiplies the arrays as they
// are, Float16Products copies whose numbers are rounded to float16, BFloat16Products copies in bfloat16, as pairs
// (micro_kernel_bfloat16.h). All sums are in single precision.
#pragma once

#include "gemm/gemm.h"
#include "gemm/micro_kernel_bfloat16.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace msg_ms {

// Round to the nearest float16, to the even one of two: to infinity from 65520 on. A NaN stays a NaN.
#if defined(__AVX512F__)
MSG_MS_INLINE inline Vec round_float16(Vec v) {
  return (Vec)_mm512_cvtph_ps(_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#else
MSG_MS_INLINE inline Vec round_float16(Vec v) {
  constexpr uint32_t kLeastNormal = 0x38800000u, kLargest = 0x477fe000u, kInfinity = 0x7f800000u;
  const UIntVec bits = (UIntVec)v, magnitude = bits & 0x7fffffffu;
  const UIntVec rounded = (magnitude + 0xfffu + ((magnitude >> 13) & 1u)) & 0xffffe000u;
  // Below the least normal number all are multiples of 2^-24, as floats from 0.5 to 1 are.
  const UIntVec multiple = (UIntVec)(((Vec)magnitude + 0.5f) - 0.5f);
  const UIntVec result = magnitude > kInfinity      ? magnitude
                         : magnitude < kLeastNormal ? multiple
                         : rounded > kLargest       ? UIntVec{} + kInfinity
                                                    : rounded;
  return (Vec)(result | (bits & 0x80000000u));
}
#endif

// Products of float arrays, whose depth is that of the arrays.
struct FloatProducts {
  static constexpr bool pairs = false;
  static int64_t depth(int64_t n) { return n; }
  static int64_t row_stride(int64_t columns) { return columns; }

  // Save a number for the gradients, in an array whose rows are saved_stride(columns) apart.
  static int64_t saved_stride(int64_t columns) { return columns; }
  static MSG_MS_INLINE void save(float *row, int64_t c, int64_t lanes, Vec v) { store_lanes(row + c, v, lanes); }
  static MSG_MS_INLINE Vec load_saved(const float *row, int64_t c, int64_t lanes) { return load_lanes(row + c, lanes); }

  static void multiply(int64_t rows, int64_t columns, int64_t depth, Matrix a, Matrix b, float *c,
                       const Epilogue &epilogue = nullptr, bool accumulate = false) {
    gemm(rows, columns, depth, a, b, c, epilogue, accumulate);
  }
};

struct SingleProducts : FloatProducts {
  static constexpr bool rounds = false;
  static MSG_MS_INLINE Vec round(Vec v) { return v; }

  // Store `lanes` numbers from column c of an operand's row.
  static MSG_MS_INLINE void store(float *row, int64_t c, int64_t lanes, Vec v) { store_lanes(row + c, v, lanes); }
};

struct Float16Products : FloatProducts {
  static constexpr bool rounds = true;
  static MSG_MS_INLINE Vec round(Vec v) { return round_float16(v); }

  static MSG_MS_INLINE void store(float *row, int64_t c, int64_t lanes, Vec v) {
    store_lanes(row + c, round(v), lanes);
  }
};

struct BFloat16Products {
  static constexpr bool pairs = true, rounds = true;
  static int64_t depth(int64_t n) { return pair_count(n); }

  // Rows that are a multiple of 4 KB apart would compete for the same cache lines.
  static int64_t row_stride(int64_t columns) { return round_up(pair_count(columns), 16) | 16; }

  static MSG_MS_INLINE Vec round(Vec v) { return v; }

  static MSG_MS_INLINE void store(float *row, int64_t c, int64_t lanes, Vec v) {
    store_rounded(reinterpret_cast<BFloat16 *>(row) + c, v, lanes);
  }

  static int64_t saved_stride(int64_t columns) { return pair_count(columns); }
  static MSG_MS_INLINE void save(float *row, int64_t c, int64_t lanes, Vec v) { store(row, c, lanes, v); }
  static MSG_MS_INLINE Vec load_saved(const float *row, int64_t c, int64_t lanes) {
    return load_rounded(reinterpret_cast<const BFloat16 *>(row) + c, lanes);
  }

  static void multiply(int64_t rows, int64_t columns, int64_t depth, Matrix a, Matrix b, float *c,
                       const Epilogue &epilogue = nullptr, bool accumulate = false) {
    gemm_pairs(rows, columns, pair_count(depth), a, b, c, epilogue, accumulate);
  }
};

// Where the rows of a RowOperand are; a copy fits into the registers of a loop.
template <typename Products>
struct RowWriter {
  float *data;
  int64_t stride, columns;

  MSG_MS_INLINE void store(int64_t i, int64_t c, int64_t lanes, Vec v) const {
    Products::store(data + i * stride, c, lanes, v);
  }

  void clear(int64_t i) const { std::memset(data + i * stride, 0, Products::depth(columns) * sizeof(float)); }
};

// An operand (n, columns) of a product that sums over the columns.
template <typename Products>
class RowOperand {
 public:
  // To be written by writer(), or as an array in single precision at data() unless Products::pairs.
  RowOperand(int64_t n, int64_t columns)
      : writer_{nullptr, Products::row_stride(columns), columns}, own_(n * writer_.stride) {
    writer_.data = own_;
    for (int64_t i = 0; Products::pairs && columns % 2 != 0 && i < n; ++i) writer_.clear(i);  // completes the last pair
  }

  // An array, of which it is a copy if Products::rounds.
  RowOperand(const float *x, int64_t n, int64_t columns)
      : writer_{const_cast<float *>(x), Products::row_stride(columns), columns},
        own_(Products::rounds ? n * writer_.stride : 1) {
    if (!Products::rounds) return;
    writer_.data = own_;
    const RowWriter<Products> to = writer_;
    parallel_for(n, kMinElements / columns + 1, [=](int, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        if (Products::pairs && columns % 2 != 0) to.clear(i);
        for_each_vector(
          columns, [&](int64_t c, int64_t lanes) { to.store(i, c, lanes, load_lanes(x + i * columns + c, lanes)); });
      }
    });
  }

  RowWriter<Products> writer() const { return writer_; }
  float *data() const { return writer_.data; }
  Matrix left() const { return {writer_.data, writer_.stride, 1}; }   // (n, columns)
  Matrix right() const { return {writer_.data, 1, writer_.stride}; }  // transposed: (columns, n)

 private:
  RowWriter<Products> writer_;
  const Workspace own_;
};

// Write pairs of successive rows of x (n, columns): (pair_count(n), columns).
inline void interleave_rows(const float *x, int64_t n, int64_t columns, float *to) {
  for (int64_t i = 0; i < n; i += 2, x += 2 * columns, to += columns) {
    for_each_vector(columns, [&](int64_t c, int64_t lanes) {
      const Vec second = i + 1 < n ? load_lanes(x + columns + c, lanes) : Vec{};
      store_lanes(to + c, BFloat16Arithmetic::round_pair(load_lanes(x + c, lanes), second), lanes);
    });
  }
}

// An operand (n, columns) of a product that sums over the rows; x is its array.
template <typename Products>
class ColumnOperand {
 public:
  ColumnOperand(const float *x, int64_t n, int64_t columns) : ColumnOperand(x, n, columns, Products::rounds) {}

  // The array of which `rows` is an operand already.
  ColumnOperand(const RowOperand<Products> &rows, const float *x, int64_t n, int64_t columns)
      : ColumnOperand(Products::pairs ? x : rows.data(), n, columns, Products::pairs) {}

  Matrix left() const { return transposed(data_, columns_); }  // transposed: (columns, n)
  Matrix right() const { return matrix(data_, columns_); }     // (n, columns)

 private:
  ColumnOperand(const float *x, int64_t n, int64_t columns, bool copies)
      : data_(x), columns_(columns), own_(copies ? Products::depth(n) * columns : 1) {
    if (!copies) return;
    float *const to = own_;
    const int64_t grain = kMinElements / columns + 1;
    parallel_for(Products::depth(n), grain, [=](int, int64_t begin, int64_t end) {
      if (Products::pairs) {
        return interleave_rows(x + 2 * begin * columns, std::min(2 * end, n) - 2 * begin, columns,
                               to + begin * columns);
      }
      for_each_vector((end - begin) * columns, [&](int64_t c, int64_t lanes) {
        const int64_t at = begin * columns + c;
        store_lanes(to + at, Products::round(load_lanes(x + at, lanes)), lanes);
      });
    });
    data_ = own_;
  }

  const float *data_;
  const int64_t columns_;
  const Workspace own_;
};

// The same for an operand on the right whose array has the form of packed panels, its numbers rounded unless
// Products::pairs.
template <typename Products>
class PanelOperand {
 public:
  PanelOperand(const float *panels, int64_t n, int64_t columns)
      : data_(panels), own_(Products::pairs ? Products::depth(n) * round_up(columns, panel_width(columns)) : 1) {
    if (!Products::pairs) return;
    float *const to = own_;
    const int64_t width = panel_width(columns);
    parallel_for((columns + width - 1) / width, 1, [=](int, int64_t begin, int64_t end) {
      for (int64_t p = begin * width; p < end * width; p += width) {
        interleave_rows(panels + p * n, n, width, to + p * Products::depth(n));
      }
    });
    data_ = own_;
  }

  Matrix right() const { return packed_panels(data_); }

 private:
  const float *data_;
  const Workspace own_;
};

// A weight (out, in) on the right of several products, packed for the lifetime of this object if `packed`: of x w^T,
// which sums over the columns, with Operand = RowOperand; of dy w, which sums over the rows, with ColumnOperand.
template <typename Products, template <typename> class Operand>
class WeightOperand {
 public:
  WeightOperand(bool packed, const float *weight, int64_t out, int64_t in)
      : operand_(weight, out, in),
        shared_(packed, Products::depth(by_rows ? in : out), by_rows ? out : in, operand_.right()) {}

  operator Matrix() const { return shared_; }

 private:
  static constexpr bool by_rows = std::is_same_v<Operand<Products>, RowOperand<Products>>;
  const Operand<Products> operand_;
  const SharedMatrix shared_;
};

}  // namespace msg_ms
