"""The public ops: each validates its arguments, chooses a backend and carries its own autograd."""

from cbtalk import _vector_math
from cbtalk.ops._codebook_attention import codebook_attention as codebook_attention
from cbtalk.ops._codebook_attention import self_attention as self_attention
from cbtalk.ops._conv3x3 import conv3x3 as conv3x3
from cbtalk.ops._conv3x3 import transform_weight as transform_weight
from cbtalk.ops._flow_warp import flow_warp as flow_warp
from cbtalk.ops._group_norm import group_norm as group_norm
from cbtalk.ops._nearest_code import NearestCode as NearestCode
from cbtalk.ops._nearest_code import Quantized as Quantized
from cbtalk.ops._nearest_code import QuantizedSums as QuantizedSums
from cbtalk.ops._nearest_code import nearest_code as nearest_code
from cbtalk.ops._nearest_code import vector_quantize as vector_quantize

_vector_math.settle()
