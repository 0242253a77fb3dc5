"""The Triton kernels by op; installed as cbtalk.kernels."""
