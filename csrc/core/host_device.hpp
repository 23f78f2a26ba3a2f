// Marks functions that the CUDA build compiles for the GPU as well.
#pragma once

#if defined(__CUDACC__)
#define GRAPHMATCH_HOST_DEVICE __host__ __device__
#else
#define GRAPHMATCH_HOST_DEVICE
#endif
