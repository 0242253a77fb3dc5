"""Commands for one portrait: render, motion, crop."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from cbtalk.cli.machine import tell, use
from cbtalk.errors import ConfigError
from cbtalk.options.machine import Machine, Quiet
from cbtalk.options.render import DrivingFace, FaceOfSource, Movement, Part, Result, SourceFace
from cbtalk.options.words import DRIVING, FILE, OUTPUT, SOURCE


def render(
    source: Annotated[Path, SOURCE],
    driving: Annotated[Path, DRIVING],
    output: Annotated[Path, OUTPUT],
    source_face: SourceFace = SourceFace(),
    driving_face: DrivingFace = DrivingFace(),
    part: Part = Part(),
    movement: Movement = Movement(),
    result: Result = Result(),
    machine: Machine = Machine(),
    quiet: Quiet = False,
) -> None:
    """Animate a portrait by the motion of a video.

    Examples:

        cbtalk render -s portrait.jpg -d driving.mp4 -o out.mp4
        cbtalk render -s holiday.jpg -d driving.mp4 -o out.mp4 --paste --start 2.5 --duration 10

    Args:
        source: The portrait: an image; or a video, each frame of which is animated until one of the videos ends.
        driving: The video that moves it, or a motion file made by `cbtalk motion`.
        output: The video to write (.mp4, .mov or .mkv).
    """
    from cbtalk.precision import dtype_of
    from cbtalk.render import DrivingOptions, RenderOptions, render_video

    driving_options = DrivingOptions(**vars(driving_face), **vars(part))
    options = RenderOptions(**vars(source_face), **vars(movement), **vars(result), driving=driving_options)
    device = use(machine)
    report = render_video(
        source,
        driving,
        output,
        options,
        weights=machine.weights,
        device=device,
        dtype=dtype_of(machine.precision, device),
        progress=not quiet,
    )
    tell(report, quiet)


def motion(
    driving: Annotated[Path | None, DRIVING] = None,
    output: Annotated[Path | None, OUTPUT] = None,
    info: Annotated[Path | None, FILE] = None,
    driving_face: DrivingFace = DrivingFace(),
    part: Part = Part(),
    machine: Machine = Machine(),
    quiet: Quiet = False,
) -> None:
    """Write the motion of a video to a motion file, which `cbtalk render` takes in place of the video.

    Keypoints are computed in float32, whatever the precision of the render.

    Examples:

        cbtalk motion -d driving.mp4 -o motion.safetensors --smooth 0.025
        cbtalk motion --info motion.safetensors

    Args:
        driving: The video.
        output: The motion file to write (.safetensors).
        info: A motion file to tell about instead: its length, its rate, the weights that it fits.
    """
    from cbtalk.render import DrivingOptions, motion_info, write_motion

    if info is not None:
        print(*motion_info(info), sep="\n")
        return
    if driving is None or output is None:
        raise ConfigError("motion needs --driving and --output, or --info and a motion file")
    options = DrivingOptions(**vars(driving_face), **vars(part))
    device = use(machine)
    report = write_motion(driving, output, options, weights=machine.weights, device=device, progress=not quiet)
    tell(report, quiet)


def crop(
    source: Positional[Annotated[Path, FILE]],
    output: Annotated[Path, OUTPUT],
    face: FaceOfSource = SourceFace.face,
) -> None:
    """Draw what `cbtalk render` finds in a portrait: faces, their numbers and the square that it animates.

    Examples:

        cbtalk crop portrait.jpg -o faces.png
        cbtalk crop group.jpg -o faces.png --face 2

    Args:
        source: The portrait: an image.
        output: The image to write (.png).
    """
    from cbtalk.render.crop_preview import crop_preview

    print(crop_preview(source, output, face))
