// SCSA (arXiv 2407.05128, section 3), forward and backward; scsa/cpp.py calls it.
//
// Three reads of the map each way: forward strips, pooled map, output; backward sums of gradient and map, and the
// gradient of the map. What lies between is done on strips (B, C, H) and (B, C, W), on the pooled map (B, C, n) and on
// rows of the C x C attention. A plane (one channel of one image) or a group of channels is worked through by one
// thread, and gradients of weights are made per image and summed by the caller: the number of threads changes no bit.
#include "scsa_attention.h"
#include "scsa_maps.h"
#include "scsa_strips.h"

namespace scsa_mm {
namespace {

template <typename T, typename A = typename Sum<T>::type>
void forward(T* x, const Problem& p, const A* weights, A* x_h, A* x_w, A* pooled, T* out, int threads) {
  const Buffers<A> b(p, false);
  strips(x, p.s, x_h, x_w, threads);
  strip_gates(p, weights, {Direction<A>(p, x_h, b, 0), Direction<A>(p, x_w, b, 1)}, threads);
  pooled_map(x, p, b.gates[0], b.gates[1], pooled, threads);
  ChannelGate<A>(p, weights, pooled, b, false, threads);
  output(x, p.s, b.gates[0], b.gates[1], b.g, out, threads);
}

template <typename T, typename A = typename Sum<T>::type>
void backward(T* grad, T* x, const Problem& p, const A* weights, const A* x_h, const A* x_w, const A* pooled, T* grad_x,
              A* grads, int threads) {
  const Shape& s = p.s;
  const int64_t planes = s.batch * s.channels, rows = p.rows(), columns = p.columns(), whole = rows * p.kh;
  const Buffers<A> b(p, true);
  const Direction<A> directions[2] = {Direction<A>(p, x_h, b, 0), Direction<A>(p, x_w, b, 1)};
  strip_gates(p, weights, directions, threads);
  ChannelGate<A> channel(p, weights, pooled, b, true, threads);

  grad_sums(grad, x, p, b.gates[0], b.gates[1], b.d_h, b.d_w, b.v_h, b.v_w, threads);
  for (int64_t i = 0; i < planes; ++i) b.grad_g[i] = dot(b.gates[0] + i * s.height, b.d_h + i * s.height, s.height);
  std::fill_n(grads, s.batch * p.weights(), A(0));
  channel.backward(grads);

  // From sums over the maps to the gradients of the strips' gates.
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < planes; ++i) {
    A *row = b.d_h + i * s.height, *column = b.d_w + i * s.width, *u = b.u + i * p.positions();
    for (int64_t k = 0; k < p.positions(); ++k) u[k] /= p.kh * p.kw;
    for (int64_t h = 0; h < s.height; ++h) row[h] *= b.g[i];
    for (int64_t w = 0; w < s.width; ++w) column[w] *= b.g[i];
    for (int64_t y = 0; y < rows; ++y) {
      const A* us = u + y * columns;
      for (int64_t h = y * p.kh; h < (y + 1) * p.kh; ++h)
        row[h] += dot(us, b.v_h + (i * whole + h) * columns, columns);
      const A* v = b.v_w + (i * rows + y) * s.width;
      for (int64_t k = 0; k < columns; ++k)
        for (int64_t w = k * p.kw; w < (k + 1) * p.kw; ++w) column[w] += us[k] * v[w];
    }
  }
  grad_strip_gates(p, weights, directions, {b.d_h, b.d_w}, grads, threads);
  grad_input(grad, p, b.g, b.u, b.gates[0], b.gates[1], b.d_h, b.d_w, grad_x, threads);
}

Problem problem(const int64_t* n) {
  return {{n[0], n[1], n[2], n[3], n[4] != 0},
          {n[5], n[6], n[7], n[8]},
          n[9],
          n[10],
          n[11],
          n[12] != 0,
          n[13] != 0 ? 2.0 : 1.0};
}

}  // namespace
}  // namespace scsa_mm

extern "C" {

// numbers: B, C, H, W, channels last?, four kernel sizes, heads, window height and width, biases of q k v?, unit?
// weights: packed. x_h (B, C, H), x_w (B, C, W), pooled (B, C, rows, columns), out like x: written.
void scsa_forward(void* x, int64_t dtype, void* numbers, void* weights, void* x_h, void* x_w, void* pooled, void* out,
                  int64_t threads) {
  using namespace scsa_mm;
  const Problem p = problem(static_cast<const int64_t*>(numbers));
  for_dtype(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using A = typename Sum<T>::type;
    forward(static_cast<T*>(x), p, static_cast<const A*>(weights), static_cast<A*>(x_h), static_cast<A*>(x_w),
            static_cast<A*>(pooled), static_cast<T*>(out), threads);
  });
}

// grad_x like x, grads (B, weights): written.
void scsa_backward(void* grad, void* x, int64_t dtype, void* numbers, void* weights, void* x_h, void* x_w,
                   void* pooled, void* grad_x, void* grads, int64_t threads) {
  using namespace scsa_mm;
  const Problem p = problem(static_cast<const int64_t*>(numbers));
  for_dtype(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using A = typename Sum<T>::type;
    backward(static_cast<T*>(grad), static_cast<T*>(x), p, static_cast<const A*>(weights),
             static_cast<const A*>(x_h), static_cast<const A*>(x_w), static_cast<const A*>(pooled),
             static_cast<T*>(grad_x), static_cast<A*>(grads), threads);
  });
}

}  // extern "C"
