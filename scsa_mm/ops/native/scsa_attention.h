// PCSA's gate from the pooled map, forward and backward.
#pragma once

#include "scsa_problem.h"

namespace scsa_mm {
namespace {

// PCSA's gate from the pooled map, (B, C, n); n positions, d channels a head. With attention kept, also its backward.
template <typename A>
class ChannelGate {
 public:
  ChannelGate(const Problem& p, const A* weights, const A* pooled, const Buffers<A>& buffers, bool keep, int threads)
      : p_(p), weights_(weights), b_(buffers), keep_(keep), threads_(threads), n_(p.positions()), d_(p.per_head()),
        wide_(p.wide<A>()) {
    normalise(pooled);
    attend();
    for (int64_t i = 0; i < p.s.batch * p.s.channels; ++i) b_.g[i] = A(p.unit) / (A(1) + exp_of(-b_.logits[i]));
  }

  // From gradients of the gates, grad_g, to those of the pooled map, u; those of the weights are added to `grads`
  // (B, weights).
  void backward(A* grads) {
    const Shape& s = p_.s;
    const int64_t planes = s.batch * s.channels;
    for (int64_t i = 0; i < planes; ++i) b_.grad_logits[i] = b_.grad_g[i] * b_.g[i] * (A(1) - b_.g[i] / A(p_.unit));
    const A scale = A(1) / std::sqrt(A(d_));
#pragma omp parallel num_threads(threads_)
    {
#pragma omp for schedule(static)
      for (int64_t i = 0; i < s.batch * p_.heads; ++i)
        product<1>(b_.grad_v + i * d_, d_, b_.grad_logits + i * d_, 0, 1, b_.attention + i * d_ * d_, d_);
      // In place of the weights A of row i, the gradient of their logits: A_j grad_i (v_j - sum of A v).
#pragma omp for schedule(static)
      for (int64_t i = 0; i < units(); ++i) {
        const auto [head, first, count] = unit(i);
        for (int64_t k = first; k < first + count; ++k) {
          A* row = b_.attention + k * d_;
          const A* v = b_.v_mean + head * d_;
          const A factor = b_.grad_logits[k] * scale, mean = b_.logits[k];
#pragma omp simd
          for (int64_t j = 0; j < d_; ++j) row[j] *= factor * (v[j] - mean);
        }
        product_rows(count, b_.grad_q + first * wide_, wide_, b_.attention + first * d_, d_, 1,
                     b_.keys + head * d_ * wide_, d_);
      }
#pragma omp for schedule(static)
      for (int64_t i = 0; i < units(); ++i) {
        const auto [head, first, count] = unit(i);
        const A* column = b_.attention + head * d_ * d_ + first % d_;
        product_rows(count, b_.grad_k + first * wide_, wide_, column, 1, d_, b_.queries + head * d_ * wide_,
                     d_);
      }
#pragma omp for schedule(static)
      for (int64_t image = 0; image < s.batch; ++image)
        grad_scales(image, grads + image * p_.weights());
    }
  }

 private:
  // Rows of the attention that are worked on together.
  struct Unit {
    int64_t head, first, count;  // head among those of all images, first among all planes
  };
  int64_t units_per_head() const { return (d_ + kTogether - 1) / kTogether; }
  int64_t units() const { return p_.s.batch * p_.heads * units_per_head(); }
  Unit unit(int64_t i) const {
    const int64_t head = i / units_per_head(), row = i % units_per_head() * kTogether;
    return {head, head * d_ + row, std::min(kTogether, d_ - row)};
  }

  const A* scale_of(int64_t i) const { return weights_ + p_.scale(i); }
  A bias_of(int64_t i, int64_t c) const { return p_.qkv_bias ? scale_of(i)[p_.s.channels + c] : A(0); }

  // Norm over each image, then queries, keys (both ways round) and the means of values.
  void normalise(const A* pooled) {
    const int64_t channels = p_.s.channels;
    const A *gamma = weights_ + p_.norm(), *beta = gamma + channels;
    const A scale = A(1) / std::sqrt(A(d_));
#pragma omp parallel num_threads(threads_)
    {
#pragma omp for schedule(static)
      for (int64_t image = 0; image < p_.s.batch; ++image) {
        const auto [mean, rstd] = moments(pooled + image * channels * n_, channels * n_);
        b_.means[image] = mean;
        b_.factors[image] = rstd;
      }
#pragma omp for schedule(static)
      for (int64_t plane = 0; plane < p_.s.batch * channels; ++plane) {
        const int64_t c = plane % channels, head = plane / d_;
        const A mean = b_.means[plane / channels], rstd = b_.factors[plane / channels];
        const A* from = pooled + plane * n_;
        A *z = b_.z + plane * n_, *q = b_.queries + plane * wide_, *k = b_.keys + plane * wide_;
        const A wq = scale_of(0)[c], bq = bias_of(0, c), wk = scale_of(1)[c], bk = bias_of(1, c);
        A sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n_; ++i) {
          z[i] = (from[i] - mean) * rstd;
          const A y = z[i] * gamma[c] + beta[c];
          sum += y;
          q[i] = y * wq + bq;
          k[i] = y * wk + bk;
        }
        std::fill(q + n_, q + wide_, A(0));
        std::fill(k + n_, k + wide_, A(0));
        A* transposed = b_.keys_t + head * d_ * n_ + plane % d_;
        for (int64_t i = 0; i < n_; ++i) transposed[i * d_] = k[i] * scale;
        b_.y_mean[plane] = sum / n_;
        b_.v_mean[plane] = b_.y_mean[plane] * scale_of(2)[c] + bias_of(2, c);
      }
    }
  }

  void attend() {
#pragma omp parallel num_threads(threads_)
    {
      std::vector<A> scratch(keep_ ? 0 : kTogether * d_);
#pragma omp for schedule(static)
      for (int64_t i = 0; i < units(); ++i) {
        const auto [head, first, count] = unit(i);
        A* rows = keep_ ? b_.attention + first * d_ : scratch.data();
        product_rows(count, rows, d_, b_.queries + first * wide_, wide_, 1, b_.keys_t + head * d_ * n_, n_);
        for (int64_t k = 0; k < count; ++k)
          b_.logits[first + k] = softmax_mean(rows + k * d_, b_.v_mean + head * d_);
      }
    }
  }

  // Softmax in place; returns the mean of the values under it.
  A softmax_mean(A* row, const A* values) const {
    A largest = row[0], sum = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < d_; ++j) largest = row[j] > largest ? row[j] : largest;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < d_; ++j) {
      row[j] = exp_of(row[j] - largest);
      sum += row[j];
    }
    const A inverse = A(1) / sum;
#pragma omp simd
    for (int64_t j = 0; j < d_; ++j) row[j] *= inverse;
    return dot(row, values, d_);
  }

  void grad_scales(int64_t image, A* grads) const {
    const int64_t channels = p_.s.channels;
    const A *gamma = weights_ + p_.norm(), *beta = gamma + channels;
    A *grad_gamma = grads + p_.norm(), *grad_beta = grad_gamma + channels;
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t plane = image * channels + c;
      const A *dq = b_.grad_q + plane * wide_, *dk = b_.grad_k + plane * wide_, *z = b_.z + plane * n_;
      A* d = b_.u + plane * n_;
      const A wq = scale_of(0)[c], wk = scale_of(1)[c], value = b_.grad_v[plane] * scale_of(2)[c] / n_;
      A sum = 0, product = 0, sum_q = 0, sum_k = 0, product_q = 0, product_k = 0;
#pragma omp simd reduction(+ : sum, product, sum_q, sum_k, product_q, product_k)
      for (int64_t i = 0; i < n_; ++i) {
        const A y = z[i] * gamma[c] + beta[c];
        sum_q += dq[i];
        sum_k += dk[i];
        product_q += dq[i] * y;
        product_k += dk[i] * y;
        const A dy = dq[i] * wq + dk[i] * wk + value;
        sum += dy;
        product += dy * z[i];
        d[i] = dy * gamma[c];
      }
      grad_beta[c] += sum;
      grad_gamma[c] += product;
      const A products[3] = {product_q, product_k, b_.grad_v[plane] * b_.y_mean[plane]};
      const A sums[3] = {sum_q, sum_k, b_.grad_v[plane]};
      for (int64_t i = 0; i < 3; ++i) {
        grads[p_.scale(i) + c] += products[i];
        if (p_.qkv_bias) grads[p_.scale(i) + channels + c] += sums[i];
      }
    }
    grad_norm(b_.u + image * channels * n_, b_.z + image * channels * n_, channels * n_,
              b_.factors[image]);
  }

  const Problem& p_;
  const A* weights_;
  const Buffers<A>& b_;
  const bool keep_;
  const int threads_;
  const int64_t n_, d_, wide_;
};

}  // namespace
}  // namespace scsa_mm
