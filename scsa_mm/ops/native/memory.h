// Memory for what lies between input and output.
#pragma once

#include <cstdlib>
#include <new>

#include "common.h"

namespace scsa_mm {

constexpr int64_t kCacheLine = 64;

// Memory of a thread, kept from call to call: fresh memory costs as much time as what is computed in it.
class Workspace {
 public:
  ~Workspace() { std::free(memory_); }

  char* reserve(size_t bytes) {
    if (bytes > size_) {
      std::free(memory_);
      size_ = 0;
      bytes = (bytes + 4095) / 4096 * 4096;
      memory_ = static_cast<char*>(std::aligned_alloc(4096, bytes));
      if (!memory_) throw std::bad_alloc();  // ends the process: there is no way back out of a parallel loop
      size_ = bytes;
    }
    return memory_;
  }

  void trim() {
    if (size_ <= kKept) return;
    std::free(memory_);
    memory_ = nullptr;
    size_ = 0;
  }

 private:
  static constexpr size_t kKept = size_t{32} << 20;
  char* memory_ = nullptr;
  size_t size_ = 0;
};

inline thread_local Workspace workspace;

// Hands out pieces of a workspace; without memory it only counts.
class Pieces {
 public:
  explicit Pieces(char* memory = nullptr) : memory_(memory) {}

  template <typename P>
  void take(P*& pointer, int64_t n) {
    pointer = reinterpret_cast<P*>(memory_ + used_);
    used_ += (n * sizeof(P) + kCacheLine - 1) / kCacheLine * kCacheLine;
  }
  size_t used() const { return used_; }

 private:
  char* memory_;
  size_t used_ = 0;
};

}  // namespace scsa_mm
