// Reading and writing feature maps row by row, in the type of sums, whatever their dtype and memory format.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "vectors.h"

namespace scsa_mm {

// Channels that are read together: a cache line of floats in channels-last memory.
constexpr int64_t kBlock = 16;

struct Shape {
  int64_t batch, channels, height, width;
  bool channels_last;

  int64_t per_block() const { return channels_last ? std::min(kBlock, channels) : 1; }
  int64_t blocks_per_image() const { return (channels + per_block() - 1) / per_block(); }
  int64_t blocks() const { return batch * blocks_per_image(); }
};

// One to sixteen channels of one image.
struct Block {
  int64_t image, channel, count, plane;

  Block(const Shape& s, int64_t index) {
    image = index / s.blocks_per_image();
    channel = index % s.blocks_per_image() * s.per_block();
    count = std::min(s.per_block(), s.channels - channel);
    plane = image * s.channels + channel;
  }
};

// Rows of a map in the type of sums, whatever its dtype and memory format.
template <typename T>
class Rows {
 public:
  using A = typename Sum<T>::type;

  Rows(T* data, const Shape& shape) : data_(data), s_(shape), buffer_(direct() ? 0 : s_.per_block() * s_.width) {}

  // Row h of every channel of the block, one after the other at a distance of `width`.
  const A* load(const Block& block, int64_t h) {
    T* from = at(block, h);
    if constexpr (std::is_same_v<T, A>) {
      if (direct()) return from;
    }
    if (s_.channels_last) {
      for (int64_t w = 0; w < s_.width; ++w)
        for (int64_t j = 0; j < block.count; ++j) buffer_[j * s_.width + w] = static_cast<A>(from[w * s_.channels + j]);
    } else {
      convert(from, buffer_.data(), s_.width);
    }
    return buffer_.data();
  }

  // Where to write the row; store() brings it to the map.
  A* target(const Block& block, int64_t h) {
    if constexpr (std::is_same_v<T, A>) {
      if (direct()) return at(block, h);
    }
    return buffer_.data();
  }

  void store(const Block& block, int64_t h) {
    if (direct()) return;
    T* to = at(block, h);
    if (s_.channels_last) {
      for (int64_t w = 0; w < s_.width; ++w)
        for (int64_t j = 0; j < block.count; ++j) to[w * s_.channels + j] = static_cast<T>(buffer_[j * s_.width + w]);
    } else {
      convert(buffer_.data(), to, s_.width);
    }
  }

 private:
  bool direct() const { return std::is_same_v<T, A> && !s_.channels_last; }
  T* at(const Block& block, int64_t h) const {
    return s_.channels_last ? data_ + ((block.image * s_.height + h) * s_.width) * s_.channels + block.channel
                            : data_ + (block.plane * s_.height + h) * s_.width;
  }

  T* data_;
  Shape s_;
  std::vector<A> buffer_;
};

}  // namespace scsa_mm
