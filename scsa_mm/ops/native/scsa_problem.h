// What all parts of SCSA share: its sizes, the memory between input and output, products of rows, norms.
#pragma once

#include <algorithm>
#include <vector>

#include "common.h"
#include "memory.h"
#include "rows.h"
#include "vectors.h"

namespace scsa_mm {
namespace {

constexpr int64_t kParts = 4;  // sub-features of SMSA
constexpr double kEps = 1e-5;

// Columns are summed over this many rows, and these sums over the map, which rounds less than one long sum.
constexpr int64_t kRows = 16;

struct Problem {
  Shape s;
  int64_t kernels[kParts];
  int64_t heads, kh, kw;
  bool qkv_bias;
  double unit;  // what a gate's sigmoid is multiplied with

  int64_t rows() const { return s.height / kh; }
  int64_t columns() const { return s.width / kw; }
  int64_t positions() const { return rows() * columns(); }
  int64_t part() const { return s.channels / kParts; }
  int64_t per_head() const { return s.channels / heads; }

  // Positions, filled up to whole vectors.
  template <typename A>
  int64_t wide() const {
    return (positions() + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
  }

  // Where a layer's weight begins among the packed ones; its bias follows the weight.
  int64_t conv(int64_t i) const {
    int64_t at = 0;
    for (int64_t j = 0; j < i; ++j) at += part() * (kernels[j] + 1);
    return at;
  }
  int64_t norm_h() const { return conv(kParts); }
  int64_t norm_w() const { return norm_h() + 2 * s.channels; }
  int64_t norm() const { return norm_w() + 2 * s.channels; }
  int64_t scale(int64_t i) const { return norm() + (2 + i * (qkv_bias ? 2 : 1)) * s.channels; }  // q, k, v
  int64_t weights() const { return scale(3); }
};

// All that lies between input and output; one place for forward and backward.
template <typename A>
struct Buffers {
  // Strips, of rows and of columns: normalised, gates (B, C, length), and the norms' factors (B, 4).
  A *normalised[2], *gates[2], *rstd[2];
  // The normalised pooled map z (B, C, n), its norms (B); queries and keys, filled up with zeros to whole vectors, and
  // keys (n, d) of each head; means of a channel and of its values, and the gate with its logit (B, C).
  A *z, *means, *factors, *queries, *keys, *keys_t, *y_mean, *v_mean, *logits, *g;
  // For backward: attention (B, C, d) and gradients, named like what they belong to; d_h and d_w those of the strips.
  A *attention, *grad_g, *grad_logits, *grad_v, *grad_q, *grad_k, *u, *d_h, *d_w;
  // Sums of x under one gate over the width (B, C, whole rows, columns) and the height (B, C, rows, W) of each window.
  A *v_h, *v_w;

  Buffers(const Problem& p, bool backward) {
    Pieces count;
    take(p, backward, count);
    Pieces pieces(workspace.reserve(count.used()));
    take(p, backward, pieces);
  }
  ~Buffers() { workspace.trim(); }

 private:
  void take(const Problem& p, bool backward, Pieces& pieces) {
    const int64_t planes = p.s.batch * p.s.channels, lengths[2] = {p.s.height, p.s.width};
    for (int k = 0; k < 2; ++k) {
      pieces.take(normalised[k], planes * lengths[k]);
      pieces.take(gates[k], planes * lengths[k]);
      pieces.take(rstd[k], p.s.batch * kParts);
    }
    for (A** one : {&means, &factors}) pieces.take(*one, p.s.batch);
    for (A** one : {&y_mean, &v_mean, &logits, &g}) pieces.take(*one, planes);
    for (A** one : {&z, &keys_t}) pieces.take(*one, planes * p.positions());
    for (A** one : {&queries, &keys}) pieces.take(*one, planes * p.wide<A>());
    if (!backward) return;
    pieces.take(attention, planes * p.per_head());
    for (A** one : {&grad_g, &grad_logits, &grad_v}) pieces.take(*one, planes);
    for (A** one : {&grad_q, &grad_k}) pieces.take(*one, planes * p.wide<A>());
    pieces.take(u, planes * p.positions());
    pieces.take(d_h, planes * p.s.height);
    pieces.take(d_w, planes * p.s.width);
    pieces.take(v_h, planes * p.rows() * p.kh * p.columns());
    pieces.take(v_w, planes * p.rows() * p.s.width);
  }
};

template <typename A>
void add(const A* from, A* to, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) to[i] += from[i];
}

// N rows of a matrix product: out[i][j] = sum over m of factors[i * next + m * step] * rows[m][j], rows `length` long.
template <int N, typename A>
void product(A* out, int64_t length, const A* factors, int64_t next, int64_t step, const A* rows, int64_t count) {
  int64_t j = 0;
  for (; j + kLanes<A> <= length; j += kLanes<A>) {
    Vector<A> sums[N] = {};
    for (int64_t m = 0; m < count; ++m) {
      const Vector<A> row = load(rows + m * length + j);
      for (int i = 0; i < N; ++i) sums[i] += factors[i * next + m * step] * row;
    }
    for (int i = 0; i < N; ++i) store(out + i * length + j, sums[i]);
  }
  for (; j < length; ++j) {
    A sums[N] = {};
    for (int64_t m = 0; m < count; ++m)
      for (int i = 0; i < N; ++i) sums[i] += factors[i * next + m * step] * rows[m * length + j];
    for (int i = 0; i < N; ++i) out[i * length + j] = sums[i];
  }
}

constexpr int64_t kTogether = 8;  // rows of a product that share what is loaded

// The same for up to kTogether rows.
template <typename A>
void product_rows(int64_t n, A* out, int64_t length, const A* factors, int64_t next, int64_t step, const A* rows,
                  int64_t count) {
  if (n == kTogether) return product<kTogether>(out, length, factors, next, step, rows, count);
  for (int64_t i = 0; i < n; ++i) product<1>(out + i * length, length, factors + i * next, 0, step, rows, count);
}

template <typename A>
struct Moments {
  A mean, rstd;
};

// In double: strips and pooled maps are small, and what cancels here is spread over whole maps afterwards.
template <typename A>
Moments<A> moments(const A* values, int64_t n) {
  double sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += values[i];
  const double mean = sum / n;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < n; ++i) squares += (values[i] - mean) * (values[i] - mean);
  return {A(mean), A(1 / std::sqrt(squares / n + kEps))};
}

// Backward of a norm over `n` values, in place: from gradients of the normalised values to those of the values.
template <typename A>
void grad_norm(A* grad, const A* normalised, int64_t n, A rstd) {
  double sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
  for (int64_t i = 0; i < n; ++i) {
    sum += grad[i];
    product += double(grad[i]) * normalised[i];
  }
  const A mean = sum / n, slope = product / n;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) grad[i] = rstd * (grad[i] - mean - normalised[i] * slope);
}

// Sums of `count` windows that follow each other, times a factor; the usual width is known to the compiler.
template <typename A>
void windows(const A* from, A* to, int64_t count, int64_t size, A factor) {
  if (size == 7) {
    for (int64_t i = 0; i < count; ++i) {
      const A* f = from + i * 7;
      to[i] = ((f[0] + f[1]) + (f[2] + f[3]) + (f[4] + f[5]) + f[6]) * factor;
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < size; ++k) sum += from[i * size + k];
    to[i] = sum * factor;
  }
}

}  // namespace
}  // namespace scsa_mm
