// SCSA's passes over the map: three forward, two backward.
#pragma once

#include "scsa_problem.h"

namespace scsa_mm {
namespace {

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

}  // namespace
}  // namespace scsa_mm
