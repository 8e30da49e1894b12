// SCSA (arXiv 2407.05128, section 3), forward and backward; scsa/cpp.py calls it.
//
// Three reads of the map each way: forward strips, pooled map, output; backward sums of gradient and map, and the
// gradient of the map. What lies between is done on strips (B, C, H) and (B, C, W), on the pooled map (B, C, n) and on
// rows of the C x C attention. A plane (one channel of one image) or a group of channels is worked through by one
// thread, and gradients of weights are made per image and summed by the caller: the number of threads changes no bit.
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

// ---------------------------------------------------------------------------------------------- passes over the map

template <typename T, typename A = typename Sum<T>::type>
void strips(T* x, const Shape& s, A* x_h, A* x_w, int threads) {
#pragma omp parallel num_threads(threads)
  {
    Rows<T> rows(x, s);
    std::vector<A> part(s.per_block() * s.width);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < s.blocks(); ++i) {
      const Block block(s, i);
      const int64_t wide = block.count * s.width;
      A* columns = x_w + block.plane * s.width;
      std::fill_n(columns, wide, A(0));
      for (int64_t h0 = 0; h0 < s.height; h0 += kRows) {
        std::fill(part.begin(), part.end(), A(0));
        for (int64_t h = h0; h < std::min(h0 + kRows, s.height); ++h) {
          const A* row = rows.load(block, h);
          for (int64_t j = 0; j < block.count; ++j) {
            const A* r = row + j * s.width;
            A* p = part.data() + j * s.width;
            A sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t w = 0; w < s.width; ++w) {
              sum += r[w];
              p[w] += r[w];
            }
            x_h[(block.plane + j) * s.height + h] = sum / s.width;
          }
        }
        add(part.data(), columns, wide);
      }
      for (int64_t w = 0; w < wide; ++w) columns[w] /= s.height;
    }
  }
}

// Means over windows of x * a_h * a_w.
template <typename T, typename A = typename Sum<T>::type>
void pooled_map(T* x, const Problem& p, const A* a_h, const A* a_w, A* out, int threads) {
  const Shape& s = p.s;
  const int64_t rows_out = p.rows(), columns = p.columns();
#pragma omp parallel num_threads(threads)
  {
    Rows<T> rows(x, s);
    std::vector<A> part(s.per_block() * s.width);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < s.blocks(); ++i) {
      const Block block(s, i);
      for (int64_t y = 0; y < rows_out; ++y) {
        std::fill(part.begin(), part.end(), A(0));
        for (int64_t h = y * p.kh; h < (y + 1) * p.kh; ++h) {
          const A* row = rows.load(block, h);
          for (int64_t j = 0; j < block.count; ++j) {
            const A* r = row + j * s.width;
            A* sums = part.data() + j * s.width;
            const A gate = a_h[(block.plane + j) * s.height + h];
#pragma omp simd
            for (int64_t w = 0; w < s.width; ++w) sums[w] += r[w] * gate;
          }
        }
        for (int64_t j = 0; j < block.count; ++j) {
          A* sums = part.data() + j * s.width;
          const A* gates = a_w + (block.plane + j) * s.width;
#pragma omp simd
          for (int64_t w = 0; w < s.width; ++w) sums[w] *= gates[w];
          windows(sums, out + ((block.plane + j) * rows_out + y) * columns, columns, p.kw, A(1) / (p.kh * p.kw));
        }
      }
    }
  }
}

// x * (a_h * g) * a_w.
template <typename T, typename A = typename Sum<T>::type>
void output(T* x, const Shape& s, const A* a_h, const A* a_w, const A* g, T* out, int threads) {
#pragma omp parallel num_threads(threads)
  {
    Rows<T> rows(x, s), results(out, s);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < s.blocks(); ++i) {
      const Block block(s, i);
      for (int64_t h = 0; h < s.height; ++h) {
        const A* row = rows.load(block, h);
        A* result = results.target(block, h);
        for (int64_t j = 0; j < block.count; ++j) {
          const int64_t plane = block.plane + j;
          const A* r = row + j * s.width;
          const A* gates = a_w + plane * s.width;
          const A gate = a_h[plane * s.height + h] * g[plane];
          A* o = result + j * s.width;
#pragma omp simd
          for (int64_t w = 0; w < s.width; ++w) o[w] = r[w] * gate * gates[w];
        }
        results.store(block, h);
      }
    }
  }
}

// Sums of grad * x under the gates, over rows (r_h) and columns (r_w); and of x under one gate, over the width (v_h)
// and the height (v_w) of each window.
template <typename T, typename A = typename Sum<T>::type>
void grad_sums(T* grad, T* x, const Problem& p, const A* a_h, const A* a_w, A* r_h, A* r_w, A* v_h, A* v_w,
               int threads) {
  const Shape& s = p.s;
  const int64_t whole = p.rows() * p.kh, columns = p.columns();
#pragma omp parallel num_threads(threads)
  {
    Rows<T> grads(grad, s), rows(x, s);
    std::vector<A> part(s.per_block() * s.width), gated(s.width);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < s.blocks(); ++i) {
      const Block block(s, i);
      const int64_t wide = block.count * s.width;
      std::fill_n(r_w + block.plane * s.width, wide, A(0));
      std::fill_n(v_w + block.plane * p.rows() * s.width, wide * p.rows(), A(0));
      for (int64_t h0 = 0; h0 < s.height; h0 += kRows) {
        std::fill(part.begin(), part.end(), A(0));
        for (int64_t h = h0; h < std::min(h0 + kRows, s.height); ++h) {
          const A* grad_row = grads.load(block, h);
          const A* row = rows.load(block, h);
          for (int64_t j = 0; j < block.count; ++j) {
            const int64_t plane = block.plane + j;
            const A* g = grad_row + j * s.width;
            const A* r = row + j * s.width;
            const A* gates = a_w + plane * s.width;
            const A gate = a_h[plane * s.height + h];
            A* sums = part.data() + j * s.width;
            A* t = gated.data();
            A sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t w = 0; w < s.width; ++w) {
              const A product = g[w] * r[w];
              sums[w] += product * gate;
              sum += product * gates[w];
              t[w] = r[w] * gates[w];
            }
            r_h[plane * s.height + h] = sum;
            if (h >= whole) continue;
            windows(t, v_h + (plane * whole + h) * columns, columns, p.kw, A(1));
            A* v = v_w + (plane * p.rows() + h / p.kh) * s.width;
#pragma omp simd
            for (int64_t w = 0; w < s.width; ++w) v[w] += r[w] * gate;
          }
        }
        add(part.data(), r_w + block.plane * s.width, wide);
      }
    }
  }
}

// (grad * g + u) * a_h * a_w + d_h + d_w, with u spread over its windows.
template <typename T, typename A = typename Sum<T>::type>
void grad_input(T* grad, const Problem& p, const A* g, const A* u, const A* a_h, const A* a_w, const A* d_h,
                const A* d_w, T* out, int threads) {
  const Shape& s = p.s;
  const int64_t whole = p.rows() * p.kh, columns = p.columns();
#pragma omp parallel num_threads(threads)
  {
    Rows<T> grads(grad, s), results(out, s);
    std::vector<A> spread(s.per_block() * s.width);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < s.blocks(); ++i) {
      const Block block(s, i);
      for (int64_t h = 0; h < s.height; ++h) {
        if (h % p.kh == 0) {  // a row of windows begins, or what is left below the last
          std::fill(spread.begin(), spread.end(), A(0));
          for (int64_t j = 0; h < whole && j < block.count; ++j) {
            const A* from = u + ((block.plane + j) * p.rows() + h / p.kh) * columns;
            for (int64_t k = 0; k < columns; ++k) std::fill_n(spread.data() + j * s.width + k * p.kw, p.kw, from[k]);
          }
        }
        const A* grad_row = grads.load(block, h);
        A* result = results.target(block, h);
        for (int64_t j = 0; j < block.count; ++j) {
          const int64_t plane = block.plane + j;
          const A* from = grad_row + j * s.width;
          const A* us = spread.data() + j * s.width;
          const A* gates = a_w + plane * s.width;
          const A* column = d_w + plane * s.width;
          const A gate = a_h[plane * s.height + h], channel = g[plane], row = d_h[plane * s.height + h];
          A* o = result + j * s.width;
#pragma omp simd
          for (int64_t w = 0; w < s.width; ++w)
            o[w] = (from[w] * channel + us[w]) * (gate * gates[w]) + (row + column[w]);
        }
        results.store(block, h);
      }
    }
  }
}

// ------------------------------------------------------------------------------------------------ gates of the strips

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

// -------------------------------------------------------------------------------------------- attention of channels

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

// ------------------------------------------------------------------------------------------------------- everything

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
