// Dense tabu search on the GPU: one block per problem and run.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/team_qap_tabu.hpp"

namespace graphmatch {

// Bytes of device memory that the searches of problems of up to `nodes` nodes need on the current device: what does
// not fit into shared memory, for as many blocks as run at a time.
cudaError_t qap_tabu_scratch_bytes(std::int64_t nodes, std::int64_t searches, std::int64_t* bytes);

// Queues the searches of a batch (core/team_qap_tabu.hpp) on `stream` of the current device. All pointers are device
// pointers; `scratch` is aligned to 16 bytes. Answers of problems that are left out stay as they are.
cudaError_t launch_qap_tabu(const QapTabuBatch& batch, void* scratch, cudaStream_t stream);

}  // namespace graphmatch
