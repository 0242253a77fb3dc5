"""The ways of keeping clips, by the names that the index has for them."""

from cbtalk.dataset.decoded import Decoded
from cbtalk.dataset.images import Images
from cbtalk.dataset.record import Kind
from cbtalk.dataset.shard import Shard
from cbtalk.dataset.video import Video

KINDS: dict[str, Kind] = {"decoded": Decoded(), "video": Video(), "images": Images(), "shard": Shard()}
