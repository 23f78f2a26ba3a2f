// Warps, blocks and clusters of blocks as teams (core/team.hpp).
//
// Sums run over a fixed tree (butterflies of a warp, then the warps in a butterfly), minima and argmins are exact, so
// every run gives the same bits.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/team.hpp"

namespace graphmatch {

inline constexpr int kWarpThreads = 32;
inline constexpr int kMostWarps = 32;  // of a block
inline constexpr int kMostClusterBlocks = 16;
inline constexpr unsigned kWholeWarp = 0xffffffffu;

// Numbers as unsigned integers in the same order.
__device__ inline std::uint32_t ordered(float value) {
  const auto bits = static_cast<std::uint32_t>(__float_as_int(value));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline std::uint64_t ordered(double value) {
  const auto bits = static_cast<std::uint64_t>(__double_as_longlong(value));
  return bits >> 63 ? ~bits : bits | 0x8000000000000000u;
}
__device__ inline std::uint32_t ordered(std::int32_t value) { return static_cast<std::uint32_t>(value) ^ 0x80000000u; }
__device__ inline std::uint64_t ordered(std::int64_t value) {
  return static_cast<std::uint64_t>(value) ^ 0x8000000000000000u;
}
__device__ inline float restored(std::uint32_t key, float) {
  return __int_as_float(static_cast<int>(key & 0x80000000u ? key & 0x7fffffffu : ~key));
}
__device__ inline double restored(std::uint64_t key, double) {
  return __longlong_as_double(static_cast<long long>(key >> 63 ? key & 0x7fffffffffffffffu : ~key));
}
__device__ inline std::int32_t restored(std::uint32_t key, std::int32_t) {
  return static_cast<std::int32_t>(key ^ 0x80000000u);
}
__device__ inline std::int64_t restored(std::uint64_t key, std::int64_t) {
  return static_cast<std::int64_t>(key ^ 0x8000000000000000u);
}

// The lowest key of a warp, and the lowest index among the lanes that have it.
__device__ inline std::uint32_t warp_lowest(std::uint32_t key) { return __reduce_min_sync(kWholeWarp, key); }
__device__ inline std::uint64_t warp_lowest(std::uint64_t key) {
  const auto high = static_cast<std::uint32_t>(key >> 32);
  const std::uint32_t lowest_high = __reduce_min_sync(kWholeWarp, high);
  const std::uint32_t low = high == lowest_high ? static_cast<std::uint32_t>(key) : 0xffffffffu;
  return static_cast<std::uint64_t>(lowest_high) << 32 | __reduce_min_sync(kWholeWarp, low);
}

// -0 becomes +0, so that equal numbers have equal keys.
template <class T>
__device__ T without_sign_of_zero(T value) {
  return value == T(0) ? T(0) : value;
}

template <class T>
__device__ T warp_min(T value) {
  return restored(warp_lowest(ordered(value)), T{});
}
template <class T>
__device__ T warp_max(T value) {
  return -warp_min(static_cast<T>(-value));
}
template <class T>
__device__ Found<T> warp_argmin(T value, std::int32_t index) {
  const auto key = ordered(without_sign_of_zero(value));
  const auto lowest = warp_lowest(key);
  const std::uint32_t at = key == lowest ? static_cast<std::uint32_t>(index) : 0xffffffffu;
  return {restored(lowest, T{}), static_cast<std::int32_t>(__reduce_min_sync(kWholeWarp, at))};
}
__device__ inline double warp_sum(double value) {
  for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kWholeWarp, value, offset);
  return value;
}

class WarpTeam {
 public:
  __device__ std::int64_t rank() const { return threadIdx.x % kWarpThreads; }
  __device__ std::int64_t size() const { return kWarpThreads; }
  __device__ void sync() const { __syncwarp(); }
  __device__ double reduce_sum(double value) const { return warp_sum(value); }
  template <class T>
  __device__ T reduce_min(T value) const {
    return warp_min(value);
  }
  template <class T>
  __device__ T reduce_max(T value) const {
    return warp_max(value);
  }
  template <class T>
  __device__ Found<T> argmin(T value, std::int32_t index) const {
    return warp_argmin(value, index);
  }
  __device__ WarpTeam& group() { return *this; }
  __device__ std::int64_t group_index() const { return 0; }
  __device__ std::int64_t group_count() const { return 1; }
  __device__ bool is_leading() const { return true; }
  __device__ WarpTeam& lead() { return *this; }
};

// Where the warps of a block leave their parts of a reduction; two boards in turn, so that one barrier each is enough.
struct BlockBoard {
  std::uint64_t values[2][kMostWarps];
  std::int32_t indices[2][kMostWarps];
};

// The threads of a block, in whole warps. Every member constructs its own with the block's one board in shared memory.
class BlockTeam {
 public:
  __device__ explicit BlockTeam(BlockBoard& board) : board_(&board) {}

  __device__ std::int64_t rank() const { return threadIdx.x; }
  __device__ std::int64_t size() const { return blockDim.x; }
  __device__ void sync() const { __syncthreads(); }

  __device__ double reduce_sum(double value) {
    const double of_warp = warp_sum(value);
    return warp_sum(gather(of_warp, 0.0));
  }
  template <class T>
  __device__ T reduce_min(T value) {
    const T of_warp = warp_min(value);
    return warp_min(gather(of_warp, of_warp));
  }
  template <class T>
  __device__ T reduce_max(T value) {
    return -reduce_min(static_cast<T>(-value));
  }
  template <class T>
  __device__ Found<T> argmin(T value, std::int32_t index) {
    const Found<T> of_warp = warp_argmin(value, index);
    const int turn = turn_;
    if (lane() == 0) board_->indices[turn][warp()] = of_warp.index;
    const T other = gather(of_warp.value, of_warp.value);
    return warp_argmin(other, lane() < warps() ? board_->indices[turn][lane()] : of_warp.index);
  }

  __device__ WarpTeam& group() { return group_; }
  __device__ std::int64_t group_index() const { return warp(); }
  __device__ std::int64_t group_count() const { return warps(); }
  __device__ bool is_leading() const { return true; }
  __device__ BlockTeam& lead() { return *this; }

 private:
  __device__ static int lane() { return threadIdx.x % kWarpThreads; }
  __device__ static int warp() { return threadIdx.x / kWarpThreads; }
  __device__ static int warps() { return blockDim.x / kWarpThreads; }

  // Lane w of every warp gets the value of warp w, lanes beyond the last warp get `none`.
  template <class T>
  __device__ T gather(T value, T none) {
    T* values = reinterpret_cast<T*>(board_->values[turn_]);
    if (lane() == 0) values[warp()] = value;
    __syncthreads();
    turn_ ^= 1;
    return lane() < warps() ? values[lane()] : none;
  }

  BlockBoard* board_;
  WarpTeam group_;
  int turn_ = 0;
};

// Where the blocks of a cluster leave their parts of a reduction, in global memory.
struct ClusterBoard {
  double values[2][kMostClusterBlocks];
};

// The threads of a cluster of blocks that work on one problem, led by its first block. A cluster of one block is a
// block. Only sums, minima and maxima of doubles are reduced over a cluster: everything else is the business of its
// groups and of its leading block.
class ClusterTeam {
 public:
  __device__ ClusterTeam(BlockBoard& block, ClusterBoard& cluster, int blocks)
      : lead_(block), board_(&cluster), blocks_(blocks) {}

  __device__ std::int64_t rank() const { return block() * blockDim.x + threadIdx.x; }
  __device__ std::int64_t size() const { return static_cast<std::int64_t>(blocks_) * blockDim.x; }
  __device__ void sync() const {
#if __CUDA_ARCH__ >= 900
    if (blocks_ > 1) {
      asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
      return;
    }
#endif
    __syncthreads();
  }

  __device__ double reduce_sum(double value) {
    const double of_block = lead_.reduce_sum(value);
    return blocks_ == 1 ? of_block : warp_sum(gather(of_block, 0.0));
  }
  __device__ double reduce_min(double value) {
    const double of_block = lead_.reduce_min(value);
    return blocks_ == 1 ? of_block : warp_min(gather(of_block, of_block));
  }
  __device__ double reduce_max(double value) { return -reduce_min(-value); }

  __device__ WarpTeam& group() { return lead_.group(); }
  __device__ std::int64_t group_index() const { return block() * lead_.group_count() + lead_.group_index(); }
  __device__ std::int64_t group_count() const { return blocks_ * lead_.group_count(); }
  __device__ bool is_leading() const { return block() == 0; }
  __device__ BlockTeam& lead() { return lead_; }

 private:
  __device__ std::int64_t block() const { return blocks_ == 1 ? 0 : blockIdx.x % blocks_; }

  // Lane b of every warp gets the value of block b, lanes beyond the last block get `none`.
  __device__ double gather(double of_block, double none) {
    volatile double* values = board_->values[turn_];
    if (threadIdx.x == 0) values[block()] = of_block;
    sync();
    turn_ ^= 1;
    const int lane = threadIdx.x % kWarpThreads;
    return lane < blocks_ ? values[lane] : none;
  }

  BlockTeam lead_;
  ClusterBoard* board_;
  int blocks_;
  int turn_ = 0;
};

}  // namespace graphmatch
