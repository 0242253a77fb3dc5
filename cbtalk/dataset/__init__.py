"""Sets of clips of any size: an index built once, by which single frames are read from wherever they are kept.

`index_clips` reads every frame of a set once; `ClipSet` is what training uses. In memory there are a few numbers for
each clip; the rest stays in the index, a file of the cache folder.
"""

from cbtalk.dataset.clip_set import ClipFrames, ClipSet
from cbtalk.dataset.indexing import Way, holds_shards, index_clips
from cbtalk.dataset.writing import FrameOptions, write_shards

__all__ = ["ClipFrames", "ClipSet", "FrameOptions", "Way", "holds_shards", "index_clips", "write_shards"]
