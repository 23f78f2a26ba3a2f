// Sixteen float lanes that the compiler lowers to SSE, AVX2 or AVX-512, chosen at load time by function
// multi-versioning.
//
// Only additions and minima are used, so every instruction set gives bit-identical results.
#pragma once

#include <cstdint>

// ThreadSanitizer builds crash in the resolvers that choose a version, so they get the baseline only.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__) && \
    !defined(__SANITIZE_THREAD__)
#define GRAPHMATCH_MULTIVERSION __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define GRAPHMATCH_MULTIVERSION
#endif

#define GRAPHMATCH_INLINE inline __attribute__((always_inline))

namespace graphmatch {

inline constexpr std::int64_t kLanes = 16;

// Costs are scaled to at most 1 before they enter float tables, so this stands for "forbidden" and survives additions.
inline constexpr float kBarrier = 1e30f;
inline constexpr float kBarrierTest = 1e29f;

typedef float Lanes __attribute__((vector_size(64), aligned(64)));

inline std::int64_t padded(std::int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

// By reference and always inlined: vectors never cross a call, where their ABI depends on the instruction set.
GRAPHMATCH_INLINE void take_minimum(Lanes& best, const Lanes& value) { best = value < best ? value : best; }

GRAPHMATCH_INLINE float horizontal_minimum(const Lanes& value) {
  Lanes m = value;
  take_minimum(m, __builtin_shufflevector(m, m, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  take_minimum(m, __builtin_shufflevector(m, m, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
  take_minimum(m, __builtin_shufflevector(m, m, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  take_minimum(m, __builtin_shufflevector(m, m, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
  return m[0];
}

}  // namespace graphmatch
