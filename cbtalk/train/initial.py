"""A talker's parameters taken from the weights of another one, which may have other sizes and fewer levels."""

import re
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from cbtalk.errors import WeightsError
from cbtalk.model.blocks import to_image, to_tokens
from cbtalk.model.checkpoint import load_weights, weights_file
from cbtalk.model.config import TalkerConfig
from cbtalk.model.talker import Talker

OF_A_SCALE = re.compile(r"(fuse_convs_dict\.|fuse_ms_dict\.|app_feat_emb_|to_app_feat_|warped_source_enc_)(\d+)")
# Lists of blocks that run from fine to coarse, or end in the output: what a larger image needs more of stands
# behind the first block.
LENGTHENED = re.compile(r"(net_g\.(?:encoder\.blocks|motion_emb|to_motion))\.(\d+)")
POSITIONS = ("net_g.position_emb_motion", "net_g.position_emb_app")  # (size * size, D), of the latent size


def start_from(talker: Talker, path: Path) -> str:
    """Copies into `talker` what fits of a weights file, or a name of weights; returns a line that says how much.

    Levels correspond from the coarsest on. Position tables are resized (bilinear). Entries of other shapes stay.

    Raises:
        WeightsError: the file cannot be read, or nothing in it fits.
    """
    given = load_weights(weights_file(path))
    new = talker.state_dict()
    old = {_renamed(name, given, talker): value for name, value in given.state_dict().items()}
    old |= {name: _resized(old[name], talker.config.latent_size) for name in POSITIONS if name in old}
    fitting = {name: value for name, value in old.items() if name in new and new[name].shape == value.shape}
    if not fitting:
        raise WeightsError(f"{path}: nothing in it fits this model; choose another file or leave run.init out")
    talker.load_state_dict(fitting, strict=False)
    return f"{path}: {len(fitting)} of {len(new)} entries taken over"


def _renamed(name: str, old: Talker, new: Talker) -> str:
    """The name in `new` of the entry `name` of `old`."""

    def at_scale(match: re.Match[str]) -> str:
        return match[1] + _scale_of(int(match[2]), old.config, new.config)

    def behind_first(match: re.Match[str]) -> str:
        try:
            blocks = new.get_submodule(match[1])
        except AttributeError:  # a model without motion compensation
            return match[0]
        added = len(list(blocks.children())) - len(list(old.get_submodule(match[1]).children()))
        position = int(match[2])
        return f"{match[1]}.{position + added if position else 0}"

    return LENGTHENED.sub(behind_first, OF_A_SCALE.sub(at_scale, name))


def _scale_of(size: int, old: TalkerConfig, new: TalkerConfig) -> str:
    """The scale of `new` that corresponds to one of `old`; a name that nothing bears where there is none."""
    index = old.scales.index(size)
    return str(new.scales[index]) if index < len(new.scales) else "none"


def _resized(table: Tensor, size: int) -> Tensor:
    image = to_image(table.detach().unsqueeze(0), round(table.shape[0] ** 0.5))
    return to_tokens(F.interpolate(image, size=(size, size), mode="bilinear", align_corners=True)).squeeze(0)
