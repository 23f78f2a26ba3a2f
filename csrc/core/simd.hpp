// Sixteen float lanes that the compiler lowers to SSE, AVX2 or AVX-512, chosen at load time by function
// multi-versioning.
//
// Only additions and minima are used, so every instruction set gives bit-identical results.
#pragma once

#include <cstdint>

// ThreadSanitizer builds crash in the resolvers that choose a version, so they get the baseline only.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__) && \
    !defined(__SANITIZE_THREAD__)
#define GRAPHMATCH_TARGETS  // functions may also be written once for each of these targets
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

// A label without a finite partner keeps its message: its minimum is a barrier, not a cost.
GRAPHMATCH_INLINE float finite_or_zero(float value) { return value < kBarrierTest ? value : 0.0f; }

typedef float Lanes __attribute__((vector_size(64), aligned(64)));

inline std::int64_t padded(std::int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

// By reference and always inlined: vectors never cross a call, where their ABI depends on the instruction set.
template <class V>
GRAPHMATCH_INLINE void take_minimum(V& best, const V& value) {
  best = value < best ? value : best;
}

typedef float Quad __attribute__((vector_size(16), aligned(16)));
typedef float HalfLanes __attribute__((vector_size(32), aligned(32)));

// The smallest of the low and high halves, until four candidates remain.
GRAPHMATCH_INLINE void fold_to_quad(const HalfLanes& value, Quad& folded) {
  const Quad low = __builtin_shufflevector(value, value, 0, 1, 2, 3);
  const Quad high = __builtin_shufflevector(value, value, 4, 5, 6, 7);
  folded = high < low ? high : low;
}
GRAPHMATCH_INLINE void fold_to_quad(const Lanes& value, Quad& folded) {
  const HalfLanes low = __builtin_shufflevector(value, value, 0, 1, 2, 3, 4, 5, 6, 7);
  const HalfLanes high = __builtin_shufflevector(value, value, 8, 9, 10, 11, 12, 13, 14, 15);
  const HalfLanes half = high < low ? high : low;
  fold_to_quad(half, folded);
}

// The minima of four vectors at once.
template <class V>
GRAPHMATCH_INLINE void four_minima(const V& a, const V& b, const V& c, const V& d, Quad& minima) {
  Quad qa, qb, qc, qd;
  fold_to_quad(a, qa);
  fold_to_quad(b, qb);
  fold_to_quad(c, qc);
  fold_to_quad(d, qd);
  const Quad ab_low = __builtin_shufflevector(qa, qb, 0, 4, 1, 5),
             ab_high = __builtin_shufflevector(qa, qb, 2, 6, 3, 7);
  const Quad cd_low = __builtin_shufflevector(qc, qd, 0, 4, 1, 5),
             cd_high = __builtin_shufflevector(qc, qd, 2, 6, 3, 7);
  const Quad ab = ab_high < ab_low ? ab_high : ab_low;
  const Quad cd = cd_high < cd_low ? cd_high : cd_low;
  const Quad low = __builtin_shufflevector(ab, cd, 0, 1, 4, 5), high = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
  minima = high < low ? high : low;
}

template <class V = Lanes>
GRAPHMATCH_INLINE const V& lanes(const float* pointer) {
  return *reinterpret_cast<const V*>(pointer);
}
template <class V = Lanes>
GRAPHMATCH_INLINE V& lanes(float* pointer) {
  return *reinterpret_cast<V*>(pointer);
}
GRAPHMATCH_INLINE Quad& quad(float* pointer) { return *reinterpret_cast<Quad*>(pointer); }

template <class V>
GRAPHMATCH_INLINE float horizontal_minimum(const V& value) {
  Quad m;
  fold_to_quad(value, m);
  take_minimum<Quad>(m, __builtin_shufflevector(m, m, 2, 3, 0, 1));
  take_minimum<Quad>(m, __builtin_shufflevector(m, m, 1, 0, 3, 2));
  return m[0];
}

}  // namespace graphmatch
