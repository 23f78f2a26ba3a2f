// Marks functions that the CUDA build compiles for the GPU as well, and their loops that want several loads at a time.
#pragma once

#if defined(__CUDACC__)
#define GRAPHMATCH_HOST_DEVICE __host__ __device__
#define GRAPHMATCH_UNROLL _Pragma("unroll 4")
#else
#define GRAPHMATCH_HOST_DEVICE
#define GRAPHMATCH_UNROLL
#endif
