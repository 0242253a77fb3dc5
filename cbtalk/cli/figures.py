"""The command figures."""

from pathlib import Path
from typing import Annotated

from cbtalk.cli.machine import use
from cbtalk.errors import ConfigError
from cbtalk.options.figures import Moments
from cbtalk.options.machine import Place, Weights
from cbtalk.options.render import DrivingFace, SourceFace
from cbtalk.options.words import DRIVING, OUTPUT_FOLDER, SOURCE, Flag, shown


def figures(
    source: Annotated[Path, SOURCE],
    driving: Annotated[Path, DRIVING],
    output: Annotated[Path, OUTPUT_FOLDER],
    weights: Annotated[tuple[str, ...], shown("NAME|FILE ...")] = (Weights.weights,),
    peers: Annotated[tuple[Path, ...], shown("FILE ...")] = (),
    absolute: Flag = False,
    moment: Moments = Moments(),
    source_face: SourceFace = SourceFace(),
    driving_face: DrivingFace = DrivingFace(),
    machine: Place = Place(),
) -> None:
    """Draw what the model does inside for a portrait and a driving clip, as PNG files in a folder.

    compensation: flows before and after each scale, occlusion, features warped and compensated. codes: the code that
    each place reads most. usage: how much each code is used. attention: what one place reads. comparison: results of
    several weights, and of other programs, side by side.

    Examples:

        cbtalk figures -s portrait.jpg -d driving.mp4 -o figures --place 128,180
        cbtalk figures -s portrait.jpg -d driving.mp4 -o figures --weights mini runs/mini/weights.safetensors

    Args:
        source: The portrait: an image.
        driving: The driving video.
        output: Folder for the figures; it is made.
        weights: Bundled models' names, weights files or hf:OWNER/NAME[@REVISION] (extra hub); the inner values are
            those of the first.
        peers: Videos of the same source and driving clip that other programs made.
        absolute: Put the source where the driving face is, instead of moving it as that moves.
    """
    try:
        from cbtalk.figures import draw_figures
    except ModuleNotFoundError as missing:
        raise ConfigError(f"figures need {missing.name}: pip install 'cbtalk[figures]'") from missing
    from cbtalk.render import DrivingOptions, RenderOptions

    options = RenderOptions(
        **vars(source_face),
        motion="absolute" if absolute else "relative",
        driving=DrivingOptions(**vars(driving_face)),
    )
    device = use(machine)
    lines = draw_figures(source, driving, output, options, weights=weights, peers=peers, **vars(moment), device=device)
    print(*lines, sep="\n")
