// From random bits to numbers with a distribution, array by array.
//
// Only basic operations, each rounded by itself in a fixed order: the bits are the same on every instruction set.
#pragma once

#include <cstdint>

#include "core/noise_numbers.hpp"

namespace graphmatch {

// hashes[k] = hash(first + k)
void hash_range(std::uint64_t first, std::int64_t count, std::uint64_t* hashes);

void uniform_numbers(const std::uint64_t* hashes, std::int64_t count, double* numbers);

// In place: inverse distribution functions at uniform numbers.
void gumbel_numbers(double* numbers, std::int64_t count);  // -log(-log u)
void normal_numbers(double* numbers, std::int64_t count);

// Makes `vector` orthogonal to `others`, vectors of length 1, and keeps its length. False where nothing is left of it:
// it stays as it is. `direction` receives it with length 1.
bool orthogonalise(double* vector, const double* others, std::int64_t count, std::int64_t size, double* direction);

}  // namespace graphmatch
