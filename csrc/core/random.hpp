// Counter-based random numbers: a pure function of (seed, stream, counter), so that nothing depends on the order of
// threads.
//
// Source: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64).
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace graphmatch {

class Random {
 public:
  GRAPHMATCH_HOST_DEVICE explicit Random(std::uint64_t seed) : state_(mix(seed + kGolden)) {}

  // Another sequence for every stream of a seed.
  GRAPHMATCH_HOST_DEVICE Random(std::uint64_t seed, std::uint64_t stream)
      : state_(mix(mix(seed + kGolden) ^ mix(stream * kGolden))) {}

  GRAPHMATCH_HOST_DEVICE std::uint64_t next() { return mix(state_ += kGolden); }

  // Uniform in [0, limit), limit >= 1.
  GRAPHMATCH_HOST_DEVICE std::int64_t below(std::int64_t limit) {
    return static_cast<std::int64_t>(next() >> 1) % limit;  // the bias of sizes below 2^31 is below 2^-32
  }

  // Passes over as many numbers.
  GRAPHMATCH_HOST_DEVICE void skip(std::int64_t count) { state_ += kGolden * static_cast<std::uint64_t>(count); }

 private:
  static constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15u;
  GRAPHMATCH_HOST_DEVICE static std::uint64_t mix(std::uint64_t value) {
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
    return value ^ (value >> 31);
  }

  std::uint64_t state_;
};

}  // namespace graphmatch
