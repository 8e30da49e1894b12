// SMSA's gates from the strips: convolutions, norm and sigmoid, forward and backward.
#pragma once

#include "scsa_problem.h"

namespace scsa_mm {
namespace {

// Gates of one part of the channels of an image in one direction: conv, norm, sigmoid.
// Args: strip, normalised, gates: (C/4, length), the second of them written for backward. Returns the norm's rstd.
template <typename A>
A part_gates(const Problem& p, int64_t part, const A* weights, int64_t norm, const A* strip, int64_t length,
             A* normalised, A* gates) {
  const int64_t channels = p.part(), kernel = p.kernels[part], half = kernel / 2;
  const A* conv = weights + p.conv(part);
  for (int64_t c = 0; c < channels; ++c) {
    A* z = normalised + c * length;
    const A* from = strip + c * length;
    std::fill_n(z, length, conv[channels * kernel + c]);
    for (int64_t t = 0; t < kernel; ++t) {
      const A factor = conv[c * kernel + t];
      const int64_t shift = t - half, begin = std::max<int64_t>(0, -shift), end = std::min(length, length - shift);
#pragma omp simd
      for (int64_t l = begin; l < end; ++l) z[l] += factor * from[l + shift];
    }
  }
  const auto [mean, rstd] = moments(normalised, channels * length);
  const A* gamma = weights + norm + part * channels;
  const A* beta = gamma + p.s.channels;
  for (int64_t c = 0; c < channels; ++c) {
    A* z = normalised + c * length;
    A* a = gates + c * length;
#pragma omp simd
    for (int64_t l = 0; l < length; ++l) {
      z[l] = (z[l] - mean) * rstd;
      a[l] = A(p.unit) / (A(1) + exp_of(-(z[l] * gamma[c] + beta[c])));
    }
  }
  return rstd;
}

// Backward of part_gates. `grad` (C/4, length) comes as that of the gates and leaves as that of each of the `pixels`
// whose mean a number of the strip is; gradients of the weights are added to `grads`.
template <typename A>
void grad_part_gates(const Problem& p, int64_t part, const A* weights, int64_t norm, const A* strip, int64_t length,
                     const A* normalised, const A* gates, A rstd, int64_t pixels, A* grad, A* grads) {
  const int64_t channels = p.part(), kernel = p.kernels[part], half = kernel / 2;
  const A* gamma = weights + norm + part * channels;
  A* grad_gamma = grads + norm + part * channels;
  A* grad_beta = grad_gamma + p.s.channels;
  for (int64_t c = 0; c < channels; ++c) {
    A* d = grad + c * length;
    const A* a = gates + c * length;
    const A* z = normalised + c * length;
    A sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
    for (int64_t l = 0; l < length; ++l) {
      const A logit = d[l] * a[l] * (A(1) - a[l] / A(p.unit));
      sum += logit;
      product += logit * z[l];
      d[l] = logit * gamma[c];
    }
    grad_beta[c] += sum;
    grad_gamma[c] += product;
  }
  grad_norm(grad, normalised, channels * length, rstd);
  const A* conv = weights + p.conv(part);
  A* grad_conv = grads + p.conv(part);
  std::vector<A> result(length);
  for (int64_t c = 0; c < channels; ++c) {
    A* d = grad + c * length;
    const A* from = strip + c * length;
    std::fill(result.begin(), result.end(), A(0));
    A bias = 0;
    for (int64_t l = 0; l < length; ++l) bias += d[l];
    grad_conv[channels * kernel + c] += bias;
    for (int64_t t = 0; t < kernel; ++t) {
      const A factor = conv[c * kernel + t];
      const int64_t shift = t - half, begin = std::max<int64_t>(0, -shift), end = std::min(length, length - shift);
      A* r = result.data();
      A sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t l = begin; l < end; ++l) {
        r[l + shift] += factor * d[l];
        sum += d[l] * from[l + shift];
      }
      grad_conv[c * kernel + t] += sum;
    }
    for (int64_t l = 0; l < length; ++l) d[l] = result[l] / pixels;
  }
}

// One direction of all images: the strips, what backward needs of them, and their gates, (B, C, length) each.
template <typename A>
struct Direction {
  const A* strip;
  int64_t length, norm;
  A *normalised, *gates, *rstd;

  // 0: rows, 1: columns.
  Direction(const Problem& p, const A* strip, const Buffers<A>& b, int k)
      : strip(strip), length(k ? p.s.width : p.s.height), norm(k ? p.norm_w() : p.norm_h()),
        normalised(b.normalised[k]), gates(b.gates[k]), rstd(b.rstd[k]) {}

  int64_t at(const Problem& p, int64_t image, int64_t part) const {
    return (image * p.s.channels + part * p.part()) * length;
  }
};

template <typename A>
void strip_gates(const Problem& p, const A* weights, const Direction<A> (&directions)[2], int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < p.s.batch * kParts * 2; ++i) {
    const Direction<A>& d = directions[i % 2];
    const int64_t image = i / 2 / kParts, part = i / 2 % kParts, at = d.at(p, image, part);
    d.rstd[image * kParts + part] =
        part_gates(p, part, weights, d.norm, d.strip + at, d.length, d.normalised + at, d.gates + at);
  }
}

// `grad[k]` as in grad_part_gates, for all images; `grads` (B, weights).
template <typename A>
void grad_strip_gates(const Problem& p, const A* weights, const Direction<A> (&directions)[2], A* const (&grad)[2],
                      A* grads, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < p.s.batch * kParts; ++i) {
    const int64_t image = i / kParts, part = i % kParts;
    for (int k = 0; k < 2; ++k) {  // both add to the gradients of the same convolution
      const Direction<A>& d = directions[k];
      const int64_t at = d.at(p, image, part);
      grad_part_gates(p, part, weights, d.norm, d.strip + at, d.length, d.normalised + at, d.gates + at,
                      d.rstd[image * kParts + part], directions[1 - k].length, grad[k] + at,
                      grads + image * p.weights());
    }
  }
}

}  // namespace
}  // namespace scsa_mm
