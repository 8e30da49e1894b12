// EMA of one group of channels, forward and backward; ema/lean.py explains the algebra. A group is small enough to stay
// in the cache of a core: its planes come from memory once, and all that is computed from them happens in one place.
// Loops over rows run in whole vectors: rows are padded with zeros.
#pragma once

#include <algorithm>
#include <memory>

#include "memory.h"
#include "vectors.h"

namespace scsa_mm {
namespace {

// Sums are made over this many rows first and over the map then, which rounds less than one long sum.
constexpr int64_t kRows = 16;

struct Shape {
  int64_t batch, groups, c, h, w;
  bool channels_last, unit;

  int64_t count() const { return batch * groups; }
  int64_t area() const { return h * w; }
  int64_t elements() const { return count() * c * area(); }
  int64_t strip() const { return h + w; }
};

// c planes of a map in the type of sums, whose rows can be read in whole vectors.
template <typename A>
struct Planes {
  A* base;
  int64_t plane, row;

  A* at(int64_t i, int64_t h) const { return base + i * plane + h * row; }
};

// Parameters in the type of sums, contiguous.
template <typename A>
struct Parameters {
  const A *w1, *b1, *gamma, *beta, *w3, *b3;
};

// What all groups share: branch 1's channel weights, and the filters of branch 2 summed under them.
template <typename A>
struct Shared {
  std::unique_ptr<A[]> first, filters;
  double constant = 0;

  Shared(const Parameters<A>& p, int64_t c) : first(new A[c]), filters(new A[9 * c]) {
    softmax(p.beta, first.get(), c);
    std::fill_n(filters.get(), 9 * c, A(0));
    for (int64_t o = 0; o < c; ++o) {
      for (int64_t j = 0; j < 9 * c; ++j) filters[j] += first[o] * p.w3[o * 9 * c + j];
      constant += double(first[o]) * p.b3[o];
    }
  }

  static void softmax(const A* z, A* out, int64_t c) {
    const A most = *std::max_element(z, z + c);
    double total = 0;
    for (int64_t i = 0; i < c; ++i) {
      out[i] = std::exp(z[i] - most);
      total += out[i];
    }
    for (int64_t i = 0; i < c; ++i) out[i] = A(out[i] / total);
  }
};

// What forward leaves for backward, in unpadded memory.
template <typename T, typename A>
struct Kept {
  A* strips;  // (count, c, h + w): means over rows, then over columns
  A* stats;   // (count, 3, c): mean and 1 / deviation of branch 1, channel weights of branch 2
  T* logit;   // (count, h, w), or null: then backward computes it again
};

// What one group gives to the gradients of the parameters.
template <typename A>
struct Shares {
  A *filters, *sums, *gamma, *second, *total;

  static int64_t size(int64_t c) { return 20 * c + 1; }
  Shares(A* row, int64_t c)
      : filters(row), sums(row + 9 * c), gamma(row + 18 * c), second(row + 19 * c), total(row + 20 * c) {}
};

// One thread's work on groups.
template <typename T>
class Worker {
 public:
  using A = typename Sum<T>::type;
  using V = Vector<A>;
  static constexpr int64_t L = kLanes<A>;

  Worker(const Shape& s, const Parameters<A>& p, const Shared<A>& shared, bool backward)
      : s_(s), p_(p), shared_(shared), wide_(padded(s.w)), high_(padded(s.h)), strip_(wide_ + high_) {
    Pieces count;
    carve(count, backward);
    Pieces pieces(workspace.reserve(count.used()));
    carve(pieces, backward);
    std::fill_n(zeros_, wide_, A(0));
    if (backward) std::fill_n(d_, (s.h + 2) * d_row() + L, A(0));
  }
  ~Worker() { workspace.trim(); }

  // Groups that share cache lines in channels-last memory are done together.
  static int64_t bundle(const Shape& s) {
    if (!s.channels_last) return 1;
    return std::clamp<int64_t>(kCacheLine / (s.c * sizeof(T)), 1, s.groups);
  }

  void forward(int64_t image, int64_t group, const T* x, T* out, const Kept<T, A>& kept) {
    const int64_t groups = std::min(bundle(s_), s_.groups - group);
    const Planes<A> planes = gathered(x, image, group, groups, x_);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t n = image * s_.groups + group + g;
      forward_group(Planes<A>{planes.at(g * s_.c, 0), planes.plane, planes.row}, n, out, kept);
    }
    if (s_.channels_last) scatter(planes, out, image, group, groups);
  }

  void backward(int64_t image, int64_t group, const T* x, const T* grad, T* out, const Kept<T, A>& kept, A* shares,
                A* d_strips) {
    const int64_t groups = std::min(bundle(s_), s_.groups - group);
    const Planes<A> planes = gathered(x, image, group, groups, x_);
    const Planes<A> grads = gathered(grad, image, group, groups, grad_);
    Planes<A> results = grads;
    if (direct()) results.base = const_cast<A*>(start(reinterpret_cast<const A*>(out), image, group));
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t n = image * s_.groups + group + g, i = g * s_.c;
      backward_group(Planes<A>{planes.at(i, 0), planes.plane, planes.row},
                     Planes<A>{grads.at(i, 0), grads.plane, grads.row},
                     Planes<A>{results.at(i, 0), results.plane, results.row}, n, out, kept,
                     Shares<A>(shares + n * Shares<A>::size(s_.c), s_.c), d_strips + n * s_.c * s_.strip());
    }
    if (s_.channels_last) scatter(results, out, image, group, groups);
  }

 private:
  static int64_t padded(int64_t n) { return (n + L - 1) / L * L; }
  int64_t d_row() const { return wide_ + L; }
  bool direct() const { return std::is_same_v<T, A> && !s_.channels_last && s_.w % L == 0; }

  void carve(Pieces& m, bool backward) {
    const int64_t c = s_.c, planes = direct() ? 0 : bundle(s_) * c * s_.h * wide_;
    m.take(x_, planes);
    m.take(grad_, backward ? planes : 0);
    m.take(d_, backward ? (s_.h + 2) * d_row() + L : 0);
    m.take(zeros_, wide_);
    m.take(row_, wide_);
    m.take(gates_[0], wide_);
    m.take(gates_[1], wide_);
    m.take(strips_, c * strip_);
    m.take(a_, c * strip_);
    m.take(k_, 6 * c);
    m.take(sums_, 9 * c);
    m.take(small_, 4 * c);
    if (!backward) return;
    m.take(first_h_, c * high_);
    m.take(second_h_, c * high_);
    m.take(first_w_, c * wide_);
    m.take(second_w_, c * wide_);
    m.take(dz_, c * strip_);
    m.take(d_sums_, 9 * c);
  }

  // The first element of a group, and the distances from there.
  template <typename P>
  P* start(P* map, int64_t image, int64_t group) const {
    const int64_t channels = s_.groups * s_.c;
    return map + image * channels * s_.area() + group * s_.c * (s_.channels_last ? 1 : s_.area());
  }
  int64_t step() const { return s_.channels_last ? s_.groups * s_.c : 1; }

  Planes<A> gathered(const T* map, int64_t image, int64_t group, int64_t groups, A* memory) const {
    const T* from = start(map, image, group);
    if constexpr (std::is_same_v<T, A>) {
      if (direct()) return {const_cast<A*>(from), s_.area(), s_.w};
    }
    const Planes<A> planes{memory, s_.h * wide_, wide_};
    const int64_t n = groups * s_.c, step = this->step();
    if (s_.channels_last) {
      for (int64_t h = 0; h < s_.h; ++h, from += s_.w * step) {
        for (int64_t i = 0; i < n; ++i) {
          A* to = planes.at(i, h);
          for (int64_t w = 0; w < s_.w; ++w) to[w] = static_cast<A>(from[w * step + i]);
          pad(to);
        }
      }
    } else {
      for (int64_t row = 0; row < n * s_.h; ++row, from += s_.w, memory += wide_) {
        convert(from, memory, s_.w);
        pad(memory);
      }
    }
    return planes;
  }

  void pad(A* row) const {
    for (int64_t w = s_.w; w < wide_; ++w) row[w] = A(0);
  }

  void scatter(const Planes<A>& planes, T* map, int64_t image, int64_t group, int64_t groups) const {
    T* to = start(map, image, group);
    const int64_t n = groups * s_.c, step = this->step();
    for (int64_t h = 0; h < s_.h; ++h) {
      const A* from = planes.at(0, h);
      for (int64_t w = 0; w < s_.w; ++w, to += step)
        for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(from[i * planes.plane + w]);
    }
  }

  // Where row h of plane i of group n is computed; finish() brings it to a contiguous map.
  A* target(const Planes<A>& planes, T* out, int64_t n, int64_t i, int64_t h) {
    if (s_.channels_last) return planes.at(i, h);
    return direct() ? reinterpret_cast<A*>(out) + ((n * s_.c + i) * s_.h + h) * s_.w : row_;
  }
  void finish(T* out, int64_t n, int64_t i, int64_t h) const {
    if (s_.channels_last || direct()) return;
    T* to = out + ((n * s_.c + i) * s_.h + h) * s_.w;
    convert(row_, to, s_.w);
  }

  A* a_h(int64_t i) const { return a_ + i * strip_; }
  A* a_w(int64_t i) const { return a_ + i * strip_ + high_; }

  void forward_group(const Planes<A>& x, int64_t n, T* out, const Kept<T, A>& kept) {
    const int64_t c = s_.c;
    strips(x);
    for (int64_t i = 0; i < c; ++i) {
      A* to = kept.strips + (n * c + i) * s_.strip();
      std::copy_n(strips_ + i * strip_, s_.h, to);
      std::copy_n(strips_ + i * strip_ + high_, s_.w, to + s_.h);
    }
    gates();
    A* stats = kept.stats + n * 3 * c;
    for (int64_t i = 0; i < c; ++i) moments(x, i, stats[i], stats[c + i]);
    window_sums(x, sums_);
    branch2(stats + 2 * c);

    const A constant = mixture(stats);
    // A row of the output is written when its neighbour below does not need x any more: both may be the same memory.
    for (int64_t h = 0; h < s_.h; ++h) {
      logits(x, stats, h, constant, kept_row(kept, n, h), gates_[h % 2]);
      if (h > 0) gated(x, out, n, h - 1);
    }
    gated(x, out, n, s_.h - 1);
  }

  T* kept_row(const Kept<T, A>& kept, int64_t n, int64_t h) const {
    return kept.logit ? kept.logit + n * s_.area() + h * s_.w : nullptr;
  }

  // The weights in the logit of y less its mean, into k_; returns all of it that does not depend on the place.
  A mixture(const A* stats) {
    const int64_t c = s_.c;
    double constant = shared_.constant;
    for (int64_t i = 0; i < c; ++i) {
      // One number less its mean is zero, whatever is rounded on the way.
      k_[i] = s_.area() == 1 ? A(0) : stats[2 * c + i] * p_.gamma[i] * stats[c + i];
      constant += double(stats[2 * c + i]) * p_.beta[i];
    }
    return A(constant);
  }

  void gated(const Planes<A>& x, T* out, int64_t n, int64_t h) {
    const A* gate = gates_[h % 2];
    for (int64_t i = 0; i < s_.c; ++i) {
      const A* from = x.at(i, h);
      A* to = target(x, out, n, i, h);
      for (int64_t w = 0; w < wide_; w += L) store<A>(to + w, load(from + w) * load(gate + w));
      finish(out, n, i, h);
    }
  }

  // Means over rows and columns.
  void strips(const Planes<A>& x) {
    for (int64_t i = 0; i < s_.c; ++i) {
      A *rows = strips_ + i * strip_, *columns = rows + high_;
      std::fill_n(rows, strip_, A(0));
      for (int64_t h0 = 0; h0 < s_.h; h0 += kRows) {
        const int64_t h1 = std::min(h0 + kRows, s_.h);
        A* part = h0 == 0 ? columns : row_;
        if (h0 > 0) std::fill_n(row_, wide_, A(0));
        for (int64_t h = h0; h < h1; ++h) {
          const A* from = x.at(i, h);
          V sum = {};
          for (int64_t w = 0; w < wide_; w += L) {
            const V v = load(from + w);
            sum += v;
            store<A>(part + w, load(part + w) + v);
          }
          rows[h] = sum_of<A>(sum) / s_.w;
        }
        if (h0 > 0) {
          for (int64_t w = 0; w < wide_; w += L) store<A>(columns + w, load(columns + w) + load(row_ + w));
        }
      }
      for (int64_t w = 0; w < wide_; ++w) columns[w] /= s_.h;
    }
  }

  // Sigmoids of the 1x1 convolution of the strips.
  void gates() {
    const int64_t c = s_.c;
    for (int64_t o = 0; o < c; ++o) {
      A* to = a_ + o * strip_;
      std::fill_n(to, strip_, p_.b1[o]);
      for (int64_t i = 0; i < c; ++i) add(strips_ + i * strip_, p_.w1[o * c + i], to);
      for (int64_t j = 0; j < strip_; j += L) store<A>(to + j, sigmoid(load(to + j)));
    }
  }

  void add(const A* from, A factor, A* to) const {
    for (int64_t j = 0; j < strip_; j += L) store<A>(to + j, load(to + j) + load(from + j) * factor);
  }

  // Mean and 1 / deviation of y = x * a_h * a_w. The sums are of y less the mean of some rows, so that the square of
  // the mean does not drown the variance.
  void moments(const Planes<A>& x, int64_t i, A& mean, A& rstd) const {
    const A *rows = a_h(i), *columns = a_w(i);
    const int64_t samples = std::min<int64_t>(s_.h, 8), whole = s_.w / L * L;
    V sampled = {};
    for (int64_t j = 0; j < samples; ++j) {
      const int64_t h = j * s_.h / samples;
      const A* from = x.at(i, h);
      V sum = {};
      for (int64_t w = 0; w < wide_; w += L) sum += load(from + w) * load(columns + w);
      sampled += sum * rows[h];
    }
    const A shift = sum_of<A>(sampled) / A(samples * s_.w);
    V last = {};  // the shift for the vector that has padding
    for (int64_t w = whole; w < s_.w; ++w) last[w - whole] = shift;

    V first = {}, second = {};
    for (int64_t h = 0; h < s_.h; h += 2) {
      // Of an odd number of rows, the last is its own neighbour with weight 0.
      const bool pair = h + 1 < s_.h;
      const A *from = x.at(i, h), *next = pair ? x.at(i, h + 1) : zeros_;
      const A gate = rows[h], next_gate = pair ? rows[h + 1] : A(0);
      const V next_last = pair ? last : V{};
      const A next_shift = pair ? shift : A(0);
      V s1 = {}, s2 = {}, t1 = {}, t2 = {};
      for (int64_t w = 0; w < whole; w += L) {
        const V column = load(columns + w);
        const V y = load(from + w) * gate * column - shift;
        const V z = load(next + w) * next_gate * column - next_shift;
        s1 += y;
        s2 += y * y;
        t1 += z;
        t2 += z * z;
      }
      if (whole < wide_) {
        const V column = load(columns + whole);
        const V y = load(from + whole) * gate * column - last;
        const V z = load(next + whole) * next_gate * column - next_last;
        s1 += y;
        s2 += y * y;
        t1 += z;
        t2 += z * z;
      }
      first += s1 + t1;
      second += s2 + t2;
    }
    const double n = double(s_.area()), off = total(first) / n;
    mean = A(shift + off);
    rstd = A(1 / std::sqrt(std::max(total(second) / n - off * off, 0.0) + 1e-5));
  }

  static double total(V v) {
    double sum = 0;
    for (int64_t j = 0; j < L; ++j) sum += v[j];
    return sum;
  }

  // What each place of the 3x3 window meets in the map with zeros around it.
  void window_sums(const Planes<A>& x, A* sums) const {
    for (int64_t i = 0; i < s_.c; ++i) {
      const A* rows = strips_ + i * strip_;
      for (int64_t kh = 0; kh < 3; ++kh) {
        const int64_t h0 = kh == 2 ? 1 : 0, h1 = kh == 0 ? s_.h - 1 : s_.h;
        double all = 0, left = 0, right = 0;
        for (int64_t h = h0; h < h1; ++h) {
          const A* row = x.at(i, h);
          const double sum = double(rows[h]) * s_.w;
          all += sum;
          left += sum - row[s_.w - 1];
          right += sum - row[0];
        }
        A* to = sums + i * 9 + kh * 3;
        to[0] = A(left);
        to[1] = A(all);
        to[2] = A(right);
      }
    }
  }

  // Channel weights: softmax of the mean of branch 2.
  void branch2(A* weights) {
    const int64_t c = s_.c;
    for (int64_t o = 0; o < c; ++o) {
      small_[o] = dot(p_.w3 + o * 9 * c, sums_, 9 * c) / s_.area() + p_.b3[o];
    }
    Shared<A>::softmax(small_, weights, c);
  }

  // One row of the gate; the logit goes to `logit` unless that is null.
  void logits(const Planes<A>& x, const A* mean, int64_t h, A constant, T* logit, A* gate) {
    const bool top = h == 0, bottom = h + 1 == s_.h;
    Stencil stencil{x.at(0, h), top ? zeros_ : x.at(0, h - 1), bottom ? zeros_ : x.at(0, h + 1),
                    x.plane,    top ? 0 : x.plane,             bottom ? 0 : x.plane};
    stencil.middle = V{} + constant;
    int64_t w = 0;
    for (; w + 2 * L <= wide_; w += 2 * L) convolve<2>(stencil, mean, h, w);
    if (w < wide_) convolve<1>(stencil, mean, h, w);
    store<A>(row_ + wide_ - L, stencil.pending + after<A>(stencil.right, V{}, kEach));
    if (logit) {
      // Backward must see the gate that was used, also if it is kept in fewer bits.
      convert(row_, logit, s_.w);
      convert(logit, row_, s_.w);
    }
    to_gate(gate);
  }

  void to_gate(A* gate) const {
    const A top = s_.unit ? 2 : 1;
    for (int64_t w = 0; w < wide_; w += L) store<A>(gate + w, sigmoid(load(row_ + w)) * top);
  }

  // One row of the map and its neighbours, channel by channel at some distance, and what a vector leaves to the next.
  struct Stencil {
    const A *row, *above, *below;
    int64_t plane, above_plane, below_plane;
    V middle = {}, left = {}, right = {}, pending = {};
  };
  static constexpr std::make_index_sequence<L> kEach{};

  // N vectors of a row of the 3x3 convolution, by columns of the filter: what the left and the right column give is
  // shifted by one place only after all channels are summed. Into the middle go the weighted y less their means, each
  // for itself: weighted means of many channels would be much larger than their difference to the weighted y.
  template <int N>
  INLINE void convolve(Stencil& s, const A* mean, int64_t h, int64_t w) {
    V left[N] = {}, middle[N], right[N] = {};
    for (int j = 0; j < N; ++j) middle[j] = s.middle;
    const A *f = shared_.filters.get(), *row = s.row + w, *above = s.above + w, *below = s.below + w;
    const A* columns = a_ + high_ + w;
    for (int64_t i = 0; i < s_.c; ++i, f += 9) {
      const A gate = a_h(i)[h], k = k_[i], center = mean[i];
#pragma GCC unroll 2
      for (int j = 0; j < N; ++j) {
        const V x0 = load(above + j * L), x1 = load(row + j * L), x2 = load(below + j * L);
        left[j] += x0 * f[0];
        middle[j] += x0 * f[1];
        right[j] += x0 * f[2];
        left[j] += x1 * f[3];
        middle[j] += x1 * f[4];
        middle[j] += (x1 * gate * load(columns + j * L) - center) * k;
        right[j] += x1 * f[5];
        left[j] += x2 * f[6];
        middle[j] += x2 * f[7];
        right[j] += x2 * f[8];
      }
      row += s.plane;
      above += s.above_plane;
      below += s.below_plane;
      columns += strip_;
    }
    for (int j = 0; j < N; ++j) {
      if (w + j > 0) store<A>(row_ + w + (j - 1) * L, s.pending + after<A>(s.right, right[j], kEach));
      s.pending = middle[j] + before<A>(s.left, left[j], kEach);
      s.left = left[j];
      s.right = right[j];
    }
  }

  A* d(int64_t h) const { return d_ + (h + 1) * d_row() + L; }

  void backward_group(const Planes<A>& x, const Planes<A>& grad, const Planes<A>& result, int64_t n, T* out,
                      const Kept<T, A>& kept, const Shares<A>& shares, A* d_strips) {
    const int64_t c = s_.c;
    const A *mean = kept.stats + n * 3 * c, *rstd = mean + c, *second = rstd + c;
    for (int64_t i = 0; i < c; ++i) {
      const A* from = kept.strips + (n * c + i) * s_.strip();
      A* to = strips_ + i * strip_;
      std::fill_n(to, strip_, A(0));
      std::copy_n(from, s_.h, to);
      std::copy_n(from + s_.h, s_.w, to + high_);
    }
    gates();
    window_sums(x, shares.sums);

    const double total = logit_gradient(x, grad, result, kept, n);
    const A d_mean = A(total / s_.area());
    for (int64_t i = 0; i < c; i += 2) {
      if (i + 1 < c) {
        correlate<2>(x, i, shares.filters + i * 9);
      } else {
        correlate<1>(x, i, shares.filters + i * 9);
      }
    }

    // Of y = x * a_h * a_w: k * (D - mean D - slope * (y - mean y)).
    A *k = k_, *slope = k_ + c, *normed = k_ + 2 * c;
    for (int64_t i = 0; i < c; ++i) {
      const double q = gate_sums(x, i, d_mean, mean[i]) * rstd[i];
      slope[i] = A(q * rstd[i] / s_.area());
      normed[i] = A(q);
      shares.gamma[i] = A(second[i] * q);
    }
    *shares.total = A(total);

    // Of the mean of branch 2, through its softmax; then of the nine sums of x.
    double weighted = 0;
    for (int64_t i = 0; i < c; ++i) {
      small_[i] = A(double(p_.gamma[i]) * normed[i] + double(p_.beta[i]) * total);
      weighted += double(second[i]) * small_[i];
    }
    std::fill_n(d_sums_, 9 * c, A(0));
    for (int64_t o = 0; o < c; ++o) {
      const A share = A(second[o] * (small_[o] - weighted));
      shares.second[o] = share;
      const A* w3 = p_.w3 + o * 9 * c;
      const A factor = share / s_.area();
#pragma omp simd
      for (int64_t j = 0; j < 9 * c; ++j) d_sums_[j] += factor * w3[j];
    }

    strip_gradients(k, slope, d_strips);
    for (int64_t i = 0; i < c; ++i) {
      spread(d_sums_ + 9 * i, first_h_ + i * high_, first_w_ + i * wide_);
      int64_t h = 0;
      
      for (; h + 2 <= s_.h; h += 2) input_gradient<2>(x, result, i, h, d_mean, mean[i], k[i], slope[i], n, out);
      if (h < s_.h) input_gradient<1>(x, result, i, h, d_mean, mean[i], k[i], slope[i], n, out);
    }
  }

  // D, the gradient of the logit, into d(h), and gate * grad into `result`. Returns the sum of D.
  double logit_gradient(const Planes<A>& x, const Planes<A>& grad, const Planes<A>& result, const Kept<T, A>& kept,
                        int64_t n) {
    const A* mean = kept.stats + n * 3 * s_.c;
    const A constant = mixture(mean), one = s_.unit ? A(0.5) : A(1);
    A* gate = gates_[0];
    double total = 0;
    std::fill_n(row_, wide_, A(0));
    for (int64_t h = 0; h < s_.h; ++h) {
      if (const T* logit = kept_row(kept, n, h)) {
        convert(logit, row_, s_.w);
        to_gate(gate);
      } else {
        logits(x, mean, h, constant, nullptr, gate);
      }
      V sum = {};
      A* to = d(h);
      for (int64_t w = 0; w < wide_; w += L) {
        const V open = load(gate + w);
        V dot = {};
        for (int64_t i = 0; i < s_.c; ++i) {
          const V g = load(grad.at(i, h) + w);
          dot += g * load(x.at(i, h) + w);
          store<A>(result.at(i, h) + w, g * open);
        }
        dot *= open * (A(1) - open * one);
        store<A>(to + w, dot);
        sum += dot;
      }
      total += sum_of<A>(sum);
    }
    return total;
  }

  // Gradients of the summed filters of N channels: D against x, shifted to all nine places.
  template <int N>
  void correlate(const Planes<A>& x, int64_t i, A* out) const {
    V sums[N][9] = {};
    for (int64_t h0 = 0; h0 < s_.h; h0 += kRows) {
      V part[N][9] = {};
      for (int64_t h = h0; h < std::min(h0 + kRows, s_.h); ++h) {
        const A *below = d(h + 1), *row = d(h), *above = d(h - 1);
        const A* from[N];
        for (int j = 0; j < N; ++j) from[j] = x.at(i + j, h);
        for (int64_t w = 0; w < wide_; w += L) {
          // The filter's first row meets x one row above its output.
          const V v[9] = {load(below + w + 1), load(below + w), load(below + w - 1),
                          load(row + w + 1),   load(row + w),   load(row + w - 1),
                          load(above + w + 1), load(above + w), load(above + w - 1)};
#pragma GCC unroll 2
          for (int j = 0; j < N; ++j) {
            const V f = load(from[j] + w);
#pragma GCC unroll 9
            for (int m = 0; m < 9; ++m) part[j][m] += f * v[m];
          }
        }
      }
      for (int j = 0; j < N; ++j)
        for (int m = 0; m < 9; ++m) sums[j][m] += part[j][m];
    }
    for (int j = 0; j < N; ++j)
      for (int m = 0; m < 9; ++m) out[j * 9 + m] = A(total(sums[j][m]));
  }

  // With z = y less its mean and D less its mean: sums of D * (x * gate of the other strip) and of z * (the same) over
  // columns and rows. Returns the sum of D * z.
  double gate_sums(const Planes<A>& x, int64_t i, A d_mean, A mean) {
    const A *rows = a_h(i), *columns = a_w(i);
    A *first_h = first_h_ + i * high_, *second_h = second_h_ + i * high_;
    A *first_w = first_w_ + i * wide_, *second_w = second_w_ + i * wide_;
    std::fill_n(first_h, high_, A(0));
    std::fill_n(second_h, high_, A(0));
    std::fill_n(first_w, wide_, A(0));
    std::fill_n(second_w, wide_, A(0));
    V product = {};
    for (int64_t h = 0; h < s_.h; ++h) {
      const A *from = x.at(i, h), *ds = d(h);
      const A gate = rows[h];
      V s1 = {}, s2 = {}, s3 = {};
      for (int64_t w = 0; w < wide_; w += L) {
        const V v = load(from + w), d0 = load(ds + w), dc = d0 - d_mean;
        const V by_row = v * gate, by_column = v * load(columns + w), z = by_column * gate - mean;
        s1 += dc * by_column;
        s2 += z * by_column;
        s3 += d0 * z;
        store<A>(first_w + w, load(first_w + w) + dc * by_row);
        store<A>(second_w + w, load(second_w + w) + z * by_row);
      }
      first_h[h] = sum_of<A>(s1);
      second_h[h] = sum_of<A>(s2);
      product += s3;
    }
    return total(product);
  }

  // From the sums of gate_sums() to gradients of the strips, which replace them; those before the sigmoids are kept for
  // the parameters of the 1x1 convolution.
  void strip_gradients(const A* k, const A* slope, A* d_strips) {
    const int64_t c = s_.c;
    for (int64_t i = 0; i < c; ++i) {
      A* to = dz_ + i * strip_;
      const A* a = a_ + i * strip_;
      const A *h1 = first_h_ + i * high_, *h2 = second_h_ + i * high_;
      const A *w1 = first_w_ + i * wide_, *w2 = second_w_ + i * wide_;
#pragma omp simd
      for (int64_t h = 0; h < high_; ++h) to[h] = k[i] * (h1[h] - slope[i] * h2[h]) * a[h] * (A(1) - a[h]);
      to += high_;
      a += high_;
#pragma omp simd
      for (int64_t w = 0; w < wide_; ++w) to[w] = k[i] * (w1[w] - slope[i] * w2[w]) * a[w] * (A(1) - a[w]);
      std::copy_n(dz_ + i * strip_, s_.h, d_strips + i * s_.strip());
      std::copy_n(to, s_.w, d_strips + i * s_.strip() + s_.h);
    }
    for (int64_t i = 0; i < c; ++i) {
      std::fill_n(strips_, strip_, A(0));  // not needed any more
      for (int64_t o = 0; o < c; ++o) add(dz_ + o * strip_, p_.w1[o * c + i], strips_);
      for (int64_t h = 0; h < high_; ++h) first_h_[i * high_ + h] = strips_[h] / s_.w;
      for (int64_t w = 0; w < wide_; ++w) first_w_[i * wide_ + w] = strips_[high_ + w] / s_.h;
    }
  }

  // The gradient of x through its nine sums: all of them everywhere, but in the first row not the window's last one, in
  // the last row not its first one, and so on. Corners, where too much is taken off, follow in input_gradient().
  void spread(const A* d_sums, A* rows, A* columns) const {
    A all = 0;
    for (int64_t m = 0; m < 9; ++m) all += d_sums[m];
    for (int64_t h = 0; h < s_.h; ++h) rows[h] += all;
    rows[0] -= d_sums[6] + d_sums[7] + d_sums[8];
    rows[s_.h - 1] -= d_sums[0] + d_sums[1] + d_sums[2];
    columns[0] -= d_sums[2] + d_sums[5] + d_sums[8];
    columns[s_.w - 1] -= d_sums[0] + d_sums[3] + d_sums[6];
  }

  // R rows of the gradient of plane i; `result` has gate * grad.
  template <int R>
  void input_gradient(const Planes<A>& x, const Planes<A>& result, int64_t i, int64_t h, A d_mean, A mean, A k, A slope,
                      int64_t n, T* out) {
    const A* f = shared_.filters.get() + i * 9;
    const A f0 = f[0], f1 = f[1], f2 = f[2], f3 = f[3], f4 = f[4], f5 = f[5], f6 = f[6], f7 = f[7], f8 = f[8];
    const A *columns = a_w(i), *column_parts = first_w_ + i * wide_;
    const A *from = x.at(i, h), *ds = d(h);
    A* to = result.at(i, h);
    A gates[R], parts[R];
    for (int r = 0; r < R; ++r) {
      gates[r] = a_h(i)[h + r];
      parts[r] = first_h_[i * high_ + h + r];
    }
    for (int64_t w = 0; w < wide_; w += L) {
      const V column = load(columns + w), column_part = load(column_parts + w);
      V sums[R], d0[R] = {};
      for (int r = 0; r < R; ++r) sums[r] = load(to + r * result.row + w) + (column_part + parts[r]);
      // Row j of D, counted from the one above.
#pragma GCC unroll 4
      for (int j = 0; j < R + 2; ++j) {
        const A* row = ds + (j - 1) * d_row() + w;
        const V before = load(row - 1), here = load(row), after = load(row + 1);
        if (j < R) sums[j] += after * f6 + here * f7 + before * f8;
        if (j >= 1 && j - 1 < R) {
          sums[j - 1] += after * f3 + here * f4 + before * f5;
          d0[j - 1] = here;
        }
        if (j >= 2) sums[j - 2] += after * f0 + here * f1 + before * f2;
      }
      for (int r = 0; r < R; ++r) {
        const V gate = column * gates[r];
        const V z = load(from + r * x.row + w) * gate - mean;
        store<A>(to + r * result.row + w, sums[r] + gate * (k * ((d0[r] - d_mean) - slope * z)));
      }
    }
    for (int r = 0; r < R; ++r) {
      A* row = to + r * result.row;
      const A* d_sums = d_sums_ + 9 * i;
      for (int64_t side = 0; side < 2; ++side) {
        const int64_t w = side ? s_.w - 1 : 0, m = side ? 0 : 2;
        if (h + r == 0) row[w] += d_sums[6 + m];
        if (h + r == s_.h - 1) row[w] += d_sums[m];
      }
      if (s_.channels_last || direct()) continue;
      T* final_row = out + ((n * s_.c + i) * s_.h + h + r) * s_.w;
      convert(row, final_row, s_.w);
    }
  }

  const Shape& s_;
  const Parameters<A>& p_;
  const Shared<A>& shared_;
  const int64_t wide_, high_, strip_;  // lengths of a row, a column and both, with padding
  A *x_, *grad_, *d_, *zeros_, *row_, *gates_[2], *strips_, *a_, *k_, *sums_, *small_;
  A *first_h_, *second_h_, *first_w_, *second_w_, *dz_, *d_sums_;
};

}  // namespace
}  // namespace scsa_mm
