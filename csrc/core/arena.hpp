// Arrays carved from one block of memory that the caller owns. Without a base it only counts the bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/host_device.hpp"

namespace graphmatch {

class Arena {
 public:
  GRAPHMATCH_HOST_DEVICE explicit Arena(void* base) : base_(static_cast<unsigned char*>(base)) {}

  template <class T>
  GRAPHMATCH_HOST_DEVICE T* take(std::int64_t count) {
    constexpr std::int64_t kAlignment = 16;
    used_ = (used_ + kAlignment - 1) / kAlignment * kAlignment;
    unsigned char* place = base_ == nullptr ? nullptr : base_ + used_;
    used_ += count * static_cast<std::int64_t>(sizeof(T));
    return reinterpret_cast<T*>(place);
  }

  GRAPHMATCH_HOST_DEVICE std::int64_t used() const { return used_; }

 private:
  unsigned char* base_;
  std::int64_t used_ = 0;
};

}  // namespace graphmatch
