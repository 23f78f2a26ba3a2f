// From random bits to numbers with a distribution, array by array.
//
// Only basic operations, each rounded by itself in a fixed order: the bits are the same on every instruction set.
#pragma once

#include <cstdint>

namespace graphmatch {

// One round of SplitMix64: a permutation of the 64-bit numbers.
inline std::uint64_t hash(std::uint64_t value) {
  value += 0x9E3779B97F4A7C15u;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
  return value ^ (value >> 31);
}

// hashes[k] = hash(first + k)
void hash_range(std::uint64_t first, std::int64_t count, std::uint64_t* hashes);

// Uniform numbers from the upper 53 bits, centred between two representable ones: never 0 or 1.
void uniform_numbers(const std::uint64_t* hashes, std::int64_t count, double* numbers);

// In place: inverse distribution functions at uniform numbers.
void gumbel_numbers(double* numbers, std::int64_t count);  // -log(-log u)
void normal_numbers(double* numbers, std::int64_t count);

// The same for single numbers.
double uniform_number(std::uint64_t hash);
double normal_number(double u);

// Makes `vector` orthogonal to `others`, vectors of length 1, and keeps its length. False where nothing is left of it:
// it stays as it is. `direction` receives it with length 1.
bool orthogonalise(double* vector, const double* others, std::int64_t count, std::int64_t size, double* direction);

}  // namespace graphmatch
