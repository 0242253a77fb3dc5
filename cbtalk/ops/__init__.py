"""The public ops: each validates its arguments, chooses a backend and carries its own autograd."""

from cbtalk.ops.codebook_attention import codebook_attention as codebook_attention
from cbtalk.ops.codebook_attention import self_attention as self_attention
