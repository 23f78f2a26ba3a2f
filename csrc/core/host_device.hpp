// What marks functions that the CUDA build compiles for the GPU as well: those to be compiled once rather than at every
// call, and loops that want several loads at a time.
#pragma once

#if defined(__CUDACC__)
#define GRAPHMATCH_HOST_DEVICE __host__ __device__
#define GRAPHMATCH_HOST_DEVICE_CALL __host__ __device__ __noinline__
#else
#define GRAPHMATCH_HOST_DEVICE
#define GRAPHMATCH_HOST_DEVICE_CALL
#endif

// Before a loop: so many of its rounds at a time, whose loads wait together.
#if defined(__CUDA_ARCH__)
#define GRAPHMATCH_PRAGMA(text) _Pragma(#text)
#define GRAPHMATCH_UNROLL(rounds) GRAPHMATCH_PRAGMA(unroll rounds)
#else
#define GRAPHMATCH_UNROLL(rounds)
#endif
