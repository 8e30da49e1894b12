// EMA (arXiv 2305.13563, section 3), forward and backward; ema/cpp.py calls it. Groups do not depend on each other, and
// what they give to the parameters is summed afterwards in a fixed order: the number of threads changes no bit.
#include "ema_group.h"

namespace scsa_mm {
namespace {

template <typename T, typename F>
void for_each_bundle(const Shape& s, const Parameters<typename Sum<T>::type>& p,
                     const Shared<typename Sum<T>::type>& shared, bool backward, int threads, F work) {
  const int64_t bundle = Worker<T>::bundle(s), per_image = (s.groups + bundle - 1) / bundle;
#pragma omp parallel num_threads(threads)
  {
    Worker<T> worker(s, p, shared, backward);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < s.batch * per_image; ++i) work(worker, i / per_image, i % per_image * bundle);
  }
}

// Gradients of the parameters from the shares of all groups, always in the same order.
template <typename A>
void parameter_gradients(const Shape& s, const Parameters<A>& p, const Shared<A>& shared, const A* stats,
                         const A* strips, const A* shares, const A* d_strips, A* const* out, int threads) {
  const int64_t c = s.c, count = s.count(), size = Shares<A>::size(c), length = s.strip();
  A *d_w1 = out[0], *d_b1 = out[1], *d_gamma = out[2], *d_beta = out[3], *d_w3 = out[4], *d_b3 = out[5];
  const auto share = [&](int64_t n) { return Shares<A>(const_cast<A*>(shares) + n * size, c); };

  std::unique_ptr<double[]> filters(new double[9 * c]()), first(new double[c]);
  double total = 0;
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t j = 0; j < 9 * c; ++j) filters[j] += share(n).filters[j];
    total += *share(n).total;
  }
  // Of branch 1's channel weights, through their softmax to the bias of the norm.
  double weighted = 0;
  for (int64_t o = 0; o < c; ++o) {
    first[o] = p.b3[o] * total;
    for (int64_t j = 0; j < 9 * c; ++j) first[o] += p.w3[o * 9 * c + j] * filters[j];
    weighted += shared.first[o] * first[o];
  }
#pragma omp parallel num_threads(threads)
  {
    std::unique_ptr<double[]> sums(new double[9 * c]);
#pragma omp for schedule(static)
    for (int64_t o = 0; o < c; ++o) {
      double gamma = 0, beta = shared.first[o] * (first[o] - weighted), b3 = shared.first[o] * total;
      std::fill_n(sums.get(), 9 * c, 0.0);
      for (int64_t n = 0; n < count; ++n) {
        const Shares<A> part = share(n);
        gamma += part.gamma[o];
        beta += double(stats[(n * 3 + 2) * c + o]) * *part.total;
        b3 += part.second[o];
        const double factor = part.second[o];
#pragma omp simd
        for (int64_t j = 0; j < 9 * c; ++j) sums[j] += factor * part.sums[j];
      }
      d_gamma[o] = A(gamma);
      d_beta[o] = A(beta);
      d_b3[o] = A(b3);
      for (int64_t j = 0; j < 9 * c; ++j) {
        d_w3[o * 9 * c + j] = A(shared.first[o] * filters[j] + sums[j] / s.area());
      }

      double b1 = 0;
      std::fill_n(sums.get(), c, 0.0);
      for (int64_t n = 0; n < count; ++n) {
        const A* z = d_strips + (n * c + o) * length;
        for (int64_t j = 0; j < length; ++j) b1 += z[j];
        for (int64_t i = 0; i < c; ++i) sums[i] += dot(z, strips + (n * c + i) * length, length);
      }
      d_b1[o] = A(b1);
      for (int64_t i = 0; i < c; ++i) d_w1[o * c + i] = A(sums[i]);
    }
  }
}

}  // namespace
}  // namespace scsa_mm

using namespace scsa_mm;

#define PARAMETERS                                                                                        \
  const Shape s{b, groups, c, h, w, channels_last != 0, unit != 0};                                       \
  using T = std::remove_pointer_t<decltype(type)>;                                                        \
  using A = typename Sum<T>::type;                                                                        \
  const Parameters<A> p{static_cast<A*>(w1),   static_cast<A*>(b1), static_cast<A*>(gamma),               \
                        static_cast<A*>(beta), static_cast<A*>(w3), static_cast<A*>(b3)};                 \
  const Shared<A> shared(p, c);                                                                           \
  const Kept<T, A> kept{static_cast<A*>(strips), static_cast<A*>(stats), static_cast<T*>(logit)}

extern "C" {

void ema_forward(void* x, int64_t dtype, int64_t b, int64_t groups, int64_t c, int64_t h, int64_t w,
                 int64_t channels_last, int64_t unit, void* w1, void* b1, void* gamma, void* beta, void* w3, void* b3,
                 void* strips, void* stats, void* logit, void* out, int64_t threads) {
  for_dtype(dtype, [&](auto* type) {
    PARAMETERS;
    for_each_bundle<T>(s, p, shared, false, threads, [&](Worker<T>& worker, int64_t image, int64_t group) {
      worker.forward(image, group, static_cast<const T*>(x), static_cast<T*>(out), kept);
    });
  });
}

void ema_backward(void* x, int64_t dtype, int64_t b, int64_t groups, int64_t c, int64_t h, int64_t w,
                  int64_t channels_last, int64_t unit, void* w1, void* b1, void* gamma, void* beta, void* w3, void* b3,
                  void* strips, void* stats, void* logit, void* grad, void* shares, void* d_strips, void* out,
                  void* d_w1, void* d_b1, void* d_gamma, void* d_beta, void* d_w3, void* d_b3, int64_t threads) {
  for_dtype(dtype, [&](auto* type) {
    PARAMETERS;
    for_each_bundle<T>(s, p, shared, true, threads, [&](Worker<T>& worker, int64_t image, int64_t group) {
      worker.backward(image, group, static_cast<const T*>(x), static_cast<const T*>(grad), static_cast<T*>(out), kept,
                      static_cast<A*>(shares), static_cast<A*>(d_strips));
    });
    A* const gradients[] = {static_cast<A*>(d_w1),   static_cast<A*>(d_b1), static_cast<A*>(d_gamma),
                            static_cast<A*>(d_beta), static_cast<A*>(d_w3), static_cast<A*>(d_b3)};
    parameter_gradients<A>(s, p, shared, kept.stats, kept.strips, static_cast<A*>(shares), static_cast<A*>(d_strips),
                           gradients, threads);
  });
}

// How many numbers `shares` has for each group.
int64_t ema_shares(int64_t c) { return Shares<float>::size(c); }

}  // extern "C"
