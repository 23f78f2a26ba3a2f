// Vectors as wide as the registers of SSE, AVX2 or AVX-512, chosen at load time by function multi-versioning.
//
// Only additions and minima are used, so every instruction set gives bit-identical results.
#pragma once

#include <cstdint>
#include <limits>

#include "core/barrier.hpp"

// GRAPHMATCH_MULTIVERSION compiles a function of plain loops once per instruction set. Compilers take vectors that are
// wider than the registers apart into single numbers where they are compared, so functions of vectors are defined by
// GRAPHMATCH_FOR_EACH_WIDTH: VERSION(attribute, bytes of a register) for each instruction set.
//
// ThreadSanitizer builds crash in the resolvers that choose a version, so they get the baseline only.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__) && \
    !defined(__SANITIZE_THREAD__)
#define GRAPHMATCH_MULTIVERSION __attribute__((target_clones("avx512f", "avx2", "default")))
#define GRAPHMATCH_FOR_EACH_WIDTH(VERSION)        \
  VERSION(__attribute__((target("avx512f"))), 64) \
  VERSION(__attribute__((target("avx2"))), 32)    \
  VERSION(__attribute__((target("default"))), 16)
#else
#define GRAPHMATCH_MULTIVERSION
#define GRAPHMATCH_FOR_EACH_WIDTH(VERSION) VERSION(, 16)
#endif

#define GRAPHMATCH_INLINE inline __attribute__((always_inline))

namespace graphmatch {

inline constexpr std::int64_t kLanes = 16;  // rows of floats are padded to the widest vector

template <class T, int kBytes>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kBytes), aligned(kBytes)));
};
template <class T, int kBytes>
using Vector = typename VectorOf<T, kBytes>::Type;

// Numbers per vector.
template <class V>
inline constexpr std::int64_t kWidth = static_cast<std::int64_t>(sizeof(V) / sizeof(V{}[0]));

// What `omp simd reduction(min : lowest)` has found. Its vectors may begin at the largest finite number (Clang's do),
// so that a minimum over nothing but infinities ends there.
template <class T>
GRAPHMATCH_INLINE T reduced_minimum(T lowest) {
  return lowest < std::numeric_limits<T>::max() ? lowest : std::numeric_limits<T>::infinity();
}

inline std::int64_t padded(std::int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

// By reference and always inlined: vectors never cross a call, where their ABI depends on the instruction set.
template <class V>
GRAPHMATCH_INLINE void take_minimum(V& best, const V& value) {
  best = value < best ? value : best;
}

using Quad = Vector<float, 16>;

// The smallest of the low and high halves, until four candidates remain.
GRAPHMATCH_INLINE void fold_to_quad(const Quad& value, Quad& folded) { folded = value; }
GRAPHMATCH_INLINE void fold_to_quad(const Vector<float, 32>& value, Quad& folded) {
  const Quad low = __builtin_shufflevector(value, value, 0, 1, 2, 3);
  const Quad high = __builtin_shufflevector(value, value, 4, 5, 6, 7);
  folded = high < low ? high : low;
}
GRAPHMATCH_INLINE void fold_to_quad(const Vector<float, 64>& value, Quad& folded) {
  const Vector<float, 32> low = __builtin_shufflevector(value, value, 0, 1, 2, 3, 4, 5, 6, 7);
  const Vector<float, 32> high = __builtin_shufflevector(value, value, 8, 9, 10, 11, 12, 13, 14, 15);
  const Vector<float, 32> half = high < low ? high : low;
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

template <class V>
GRAPHMATCH_INLINE const V& lanes(const float* pointer) {
  return *reinterpret_cast<const V*>(pointer);
}
template <class V>
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
