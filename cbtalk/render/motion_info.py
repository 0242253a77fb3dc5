"""Facts about a motion file, for its user."""

from pathlib import Path

from safetensors import safe_open

from cbtalk.file_names import utf8_name
from cbtalk.model.checkpoint import bundled, load
from cbtalk.render.motion_changes import ends
from cbtalk.render.motion_file import load_motion


def motion_info(path: Path) -> list[str]:
    """Lines for the user: length, rate, keypoints, model and creator of a motion file; errors as in `load_motion`."""
    motion = load_motion(path, fingerprint=None, num_keypoints=None)
    with utf8_name(path) as name, safe_open(name, framework="pt") as file:
        metadata = file.metadata()
    fingerprint = metadata.get("motion_fingerprint", "none")
    fitting = [name for name in bundled() if load(name).motion_fingerprint() == fingerprint]
    return [
        f"{path}: {motion.frames} frames, {float(ends(motion) * motion.time_base):.2f} seconds",
        f"rate: {float(motion.average_rate):g} frames a second on the average",
        f"keypoints: {motion.keypoints.value.shape[1]}",
        f"model: {fingerprint}, as in {' and '.join(fitting) if fitting else 'none of the bundled'} weights",
        f"creator: {metadata.get('creator', 'unknown')}",
    ]
