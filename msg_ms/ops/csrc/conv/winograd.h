// The transforms of Winograd's convolution by 3x3 kernels, F(m x m, 3x3): tiles of m x m outputs from (m + 2)^2
// products.
//
// F(2x2) has 2.25 times fewer multiplications than the definition and about its rounding errors. F(4x4) has 4 times
// fewer, with errors of some 2e-6 of the largest output: its interpolation points 0, +-3/4, +-3/2 round less than the
// usual ones. References: Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016; Barabasz et
// al., "Error analysis and improving the accuracy of Winograd convolution for deep neural networks", 2020.
#pragma once

namespace msg_ms {

// The one-dimensional transforms, for any type with +, - and multiplication by a float.
template <int kTile>
struct Winograd;

template <>
struct Winograd<2> {
  // Four inputs -> four factors.
  template <typename T>
  static void input(const T *d, T *v) {
    v[0] = d[0] - d[2], v[1] = d[1] + d[2], v[2] = d[2] - d[1], v[3] = d[1] - d[3];
  }

  // Three weights -> four factors.
  template <typename T>
  static void weight(const T *g, T *u) {
    const T even = 0.5f * (g[0] + g[2]), odd = 0.5f * g[1];
    u[0] = g[0], u[1] = even + odd, u[2] = even - odd, u[3] = g[2];
  }

  // Four products -> two outputs.
  template <typename T>
  static void output(const T *m, T *y) {
    y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] - m[3];
  }

  // The transposes of `output` and `weight`, for the weight's gradient.
  template <typename T>
  static void output_transposed(const T *y, T *m) {
    m[0] = y[0], m[1] = y[0] + y[1], m[2] = y[0] - y[1], m[3] = T{} - y[1];
  }

  template <typename T>
  static void weight_transposed(const T *u, T *g) {
    const T even = 0.5f * (u[1] + u[2]);
    g[0] = u[0] + even, g[1] = 0.5f * (u[1] - u[2]), g[2] = even + u[3];
  }
};

template <>
struct Winograd<4> {
  static constexpr float a = 0.75f, b = 1.5f, a2 = a * a, b2 = b * b;  // the points
  static constexpr float k0 = 1 / (a2 * b2), ka = 1 / (2 * a2 * (a2 - b2)), kb = 1 / (2 * b2 * (b2 - a2));

  // Six inputs -> six factors.
  template <typename T>
  static void input(const T *d, T *v) {
    const T even_a = d[4] - b2 * d[2], odd_a = a * (d[3] - b2 * d[1]);
    const T even_b = d[4] - a2 * d[2], odd_b = b * (d[3] - a2 * d[1]);
    v[0] = (a2 * b2) * d[0] - (a2 + b2) * d[2] + d[4];
    v[1] = even_a + odd_a, v[2] = even_a - odd_a, v[3] = even_b + odd_b, v[4] = even_b - odd_b;
    v[5] = (a2 * b2) * d[1] - (a2 + b2) * d[3] + d[5];
  }

  // Three weights -> six factors.
  template <typename T>
  static void weight(const T *g, T *u) {
    const T even_a = ka * (g[0] + a2 * g[2]), odd_a = (ka * a) * g[1];
    const T even_b = kb * (g[0] + b2 * g[2]), odd_b = (kb * b) * g[1];
    u[0] = k0 * g[0], u[5] = g[2];
    u[1] = even_a + odd_a, u[2] = even_a - odd_a, u[3] = even_b + odd_b, u[4] = even_b - odd_b;
  }

  // Six products -> four outputs.
  template <typename T>
  static void output(const T *m, T *y) {
    const T even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = m[0] + even_a + even_b;
    y[1] = a * odd_a + b * odd_b;
    y[2] = a2 * even_a + b2 * even_b;
    y[3] = (a * a2) * odd_a + (b * b2) * odd_b + m[5];
  }

  // The transposes of `output` and `weight`, for the weight's gradient.
  template <typename T>
  static void output_transposed(const T *y, T *m) {
    const T even_a = y[0] + a2 * y[2], odd_a = a * y[1] + (a * a2) * y[3];
    const T even_b = y[0] + b2 * y[2], odd_b = b * y[1] + (b * b2) * y[3];
    m[0] = y[0], m[5] = y[3];
    m[1] = even_a + odd_a, m[2] = even_a - odd_a, m[3] = even_b + odd_b, m[4] = even_b - odd_b;
  }

  template <typename T>
  static void weight_transposed(const T *u, T *g) {
    const T even_a = ka * (u[1] + u[2]), odd_a = u[1] - u[2], even_b = kb * (u[3] + u[4]), odd_b = u[3] - u[4];
    g[0] = k0 * u[0] + even_a + even_b;
    g[1] = (ka * a) * odd_a + (kb * b) * odd_b;
    g[2] = a2 * even_a + b2 * even_b + u[5];
  }
};

// Apply a one-dimensional transform (kFrom values -> kTo values) to the columns and to the rows of a square.
template <int kFrom, int kTo, typename T, typename Transform>
inline void transform_square(const T *from, T *to, const Transform &transform) {
  T half[kTo][kFrom];
#pragma GCC unroll 8
  for (int j = 0; j < kFrom; ++j) {
    T column[kFrom], result[kTo];
#pragma GCC unroll 8
    for (int i = 0; i < kFrom; ++i) column[i] = from[i * kFrom + j];
    transform(column, result);
#pragma GCC unroll 8
    for (int i = 0; i < kTo; ++i) half[i][j] = result[i];
  }
#pragma GCC unroll 8
  for (int i = 0; i < kTo; ++i) transform(half[i], to + i * kTo);
}

}  // namespace msg_ms
