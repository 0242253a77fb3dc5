"""A talker as files for other programs: ONNX, and torch's own programs, of standard operators alone."""

from cbtalk.export.files import write_onnx, write_torch

__all__ = ["write_onnx", "write_torch"]
