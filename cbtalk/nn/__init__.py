"""The ops as torch modules: what has parameters, buffers or options to keep between calls."""

from cbtalk.nn.attention import CodebookAttention as CodebookAttention
from cbtalk.nn.attention import ProjectedCodes as ProjectedCodes
from cbtalk.nn.attention import SelfAttention as SelfAttention
from cbtalk.nn.flow_warp import FlowWarp as FlowWarp
from cbtalk.nn.vector_quantize import QuantizedFeatures as QuantizedFeatures
from cbtalk.nn.vector_quantize import VectorQuantize as VectorQuantize
