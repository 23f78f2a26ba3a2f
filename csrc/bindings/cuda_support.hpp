// What all functions of the CUDA module need: errors as exceptions, and the caller's device given back.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace graphmatch {

inline void check(cudaError_t error, const char* function) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // clears the error, or the next call would report it again
  throw std::runtime_error(std::string(function) + ": CUDA error " + cudaGetErrorName(error) + ": " +
                           cudaGetErrorString(error));
}

// Makes `device` current and gives the caller's device back at the end, also when something throws.
class DeviceGuard {
 public:
  DeviceGuard(int device, const char* function) {
    check(cudaGetDevice(&previous_), function);
    check(cudaSetDevice(device), function);
  }
  ~DeviceGuard() { cudaSetDevice(previous_); }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
};

}  // namespace graphmatch
