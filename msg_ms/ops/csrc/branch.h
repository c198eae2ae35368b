// What the two residual branches of a block, x + keep * f(normalise(x)), have in common.
#pragma once

#include <algorithm>

#include "kernel.h"
#include "norm.h"
#include "product.h"

namespace msg_ms {

// A gradient of n numbers that every thread sums for itself; the parts are added up in `to` at the end.
class Sums {
 public:
  Sums(int64_t n, float *to) : n_(n), to_(to), data_(threads() * n) {
    std::memset(to, 0, n * sizeof(float));
  }
  ~Sums() { add_parts(data_, threads(), n_, to_); }

  float *of(int part) const { return data_ + part * n_; }
  float *parts() const { return data_; }

 private:
  int64_t n_;
  float *to_;
  Buffer data_;
};

// A weight's gradient, a sum of products. Where threads work apart every one of them has a sum of its own, the first in
// `to`, which the others are added to at the end.
class WeightSum {
 public:
  WeightSum(int64_t rows, int64_t columns, float *to, bool apart)
      : rows_(rows), columns_(columns), to_(to), begun_(threads(), 0), others_(apart ? (threads() - 1) * rows * columns : 1) {}

  ~WeightSum() {
    const int64_t n = rows_ * columns_;
    parallel_for(n, kLeastElements, [&](int, int64_t begin, int64_t end) {
      if (!begun_[0]) std::memset(to_ + begin, 0, (end - begin) * sizeof(float));
      for (int part = 1; part < static_cast<int>(begun_.size()); ++part) {
        if (begun_[part]) add_parts(of(part) + begin, 1, end - begin, to_ + begin);
      }
    });
  }

  // Adds a (rows, depth) b (depth, columns).
  void add(int64_t depth, Matrix a, Matrix b) {
    const int part = std::max(alone(), 0);
    product(rows_, columns_, depth, a, b, of(part), nullptr, begun_[part]);
    begun_[part] = 1;
  }

 private:
  float *of(int part) const { return part == 0 ? to_ : others_ + (part - 1) * rows_ * columns_; }

  int64_t rows_, columns_;
  float *to_;
  std::vector<char> begun_;
  Memory others_;
};

constexpr float kWhole = 1.0f;  // the factor of branches that are never dropped

// The block's input (regions, windows, tokens, channels), and a factor for the branch of every image (or one for all).
struct Branch {
  int64_t regions, windows, tokens, channels, count, per_draw;
  const float *x, *keep;
  bool whole;  // every factor is one

  Branch(const int64_t *shape, const float *input, const float *factors, int64_t draws)
      : regions(shape[0]),
        windows(shape[1]),
        tokens(shape[2]),
        channels(shape[3]),
        count(regions * windows * tokens),
        per_draw(count / draws),
        x(input),
        keep(factors),
        whole(std::all_of(factors, factors + draws, [](float factor) { return factor == 1.0f; })) {}

  // How many rows at a time keep `width` numbers each in the second-level cache, in units of `unit` rows.
  int64_t chunk(int64_t width, int64_t unit) const {
    constexpr int64_t kNumbers = 1 << 16, kFew = 100;
    return std::max<int64_t>(1, std::max(kFew, kNumbers / width) / unit) * unit;
  }

  // Whether there are rows enough for every thread to work alone.
  bool apart() const { return alone() < 0 && threads() > 1 && count >= threads() * int64_t{64}; }

  // Calls body(first, n) for chunks of rows: if `apart`, by every thread for chunks of its own, else by one thread for
  // larger ones, inside of which loops are shared.
  template <typename Body>
  void for_each_chunk(int64_t width, int64_t unit, bool apart, const Body &body) const {
    constexpr int64_t kShared = 8;
    const int64_t step = chunk(width, unit) * (apart ? 1 : kShared);
    const auto range = [&](int64_t begin, int64_t end) {  // in units
      const int64_t pieces = std::max<int64_t>(1, ((end - begin) * unit + step / 2) / step);
      for (int64_t i = 0; i < pieces; ++i) {
        const int64_t from = begin + (end - begin) * i / pieces, to = begin + (end - begin) * (i + 1) / pieces;
        body(from * unit, (to - from) * unit);
      }
    };
    if (apart) {
      each_alone(count / unit, range);
    } else {
      range(0, count / unit);
    }
  }

  int64_t worth(int64_t elements = kLeastElements) const { return elements / channels + 1; }

  // Rows [first, first + n) of x, normalised.
  void normal(int64_t first, int64_t n, const float *gamma, const float *beta, float *y) const {
    parallel_for(n, worth(), [&](int, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        normalise(x + (first + i) * channels, gamma, beta, channels, y + i * channels);
      }
    });
  }

  // What a product does with its tiles: x + keep * (branch + bias), in place; for rows from `first`.
  auto sum(int64_t first, const float *bias, float *out) const {
    return [=](int, int64_t row, int64_t rows, int64_t column, int64_t columns) {
      for (int64_t i = first + row; i < first + row + rows; ++i) {
        const float kept = keep[i / per_draw], *from = x + i * channels;
        float *to = out + i * channels;
        fetch(from + rows * channels + column, columns);  // for the next tile
#pragma omp simd
        for (int64_t c = column; c < column + columns; ++c) to[c] = from[c] + kept * (to[c] + bias[c]);
      }
    };
  }

  // The branch's gradient, keep * dsum, for rows from `first`: in `space` where it is not dsum itself. Adds to dbias.
  const float *gradient(int64_t first, int64_t n, const float *dsum, float *space, const Sums &dbias) const {
    parallel_for(n, worth(), [&](int part, int64_t begin, int64_t end) {
      float *total = dbias.of(part);
      for (int64_t i = begin; i < end; ++i) {
        const float kept = keep[(first + i) / per_draw], *from = dsum + i * channels;
        float *to = space + i * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) {
          const float d = from[c] * kept;
          total[c] += d;
          if (!whole) to[c] = d;
        }
      }
    });
    return whole ? dsum : space;
  }

  // dx = dsum + the gradient through the normalisation, for rows from `first`; dnormal is used up, and dsum may be dx.
  // Adds to dgamma and dbeta.
  void normal_gradient(int64_t first, int64_t n, const float *dsum, float *dnormal, const float *gamma, float *dx,
                       const Sums &dgamma, const Sums &dbeta) const {
    parallel_for(n, worth(), [&](int part, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        float *d = dnormal + i * channels;
        normalise_grad(x + (first + i) * channels, d, gamma, channels, d, dgamma.of(part), dbeta.of(part));
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) dx[i * channels + c] = dsum[i * channels + c] + d[c];
      }
    });
  }

  // Exchanges the messages' channel groups in every region, in place: group i of window w becomes group w of window i.
  // Done twice it changes nothing, so that it is its own gradient.
  void shuffle(float *rows) const {
    const int64_t group = channels / windows;
    parallel_for(regions, worth(1 << 17) / windows + 1, [&](int, int64_t begin, int64_t end) {
      for (int64_t region = begin; region < end; ++region) {
        const auto message = [&](int64_t window) { return rows + (region * windows + window) * tokens * channels; };
        for (int64_t w = 0; w < windows; ++w) {
          for (int64_t i = 0; i < w; ++i) {
            std::swap_ranges(message(w) + i * group, message(w) + (i + 1) * group, message(i) + w * group);
          }
        }
      }
    });
  }
};

}  // namespace msg_ms
