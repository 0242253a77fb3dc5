// Called by cbtalk._native through ctypes: the architectures that nvcc compiled for, as CMake writes them, by spaces.
extern "C" __attribute__((visibility("default"))) const char* cbtalk_cuda_archs() { return CBTALK_ARCHS; }
