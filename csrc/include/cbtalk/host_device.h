#pragma once

// Marks a formula that is shared by the CPU kernels and by CUDA kernels, so that it exists in one place.
#ifdef __CUDACC__
#define CBTALK_HOST_DEVICE __host__ __device__
#else
#define CBTALK_HOST_DEVICE
#endif
