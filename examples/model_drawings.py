"""Drawings of the model for docs/model.md: `python -m examples.model_drawings [FOLDER]` writes them as SVG."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import tyro

FONT = "font-family='system-ui, sans-serif' font-size='13'"
GREY, BLUE, GREEN, AMBER = "#eceff1", "#d6e6f7", "#d9efdc", "#fbe8c8"
INK, LINE = "#263238", "#607d8b"


class Drawing:
    """Boxes, arrows and words on a white sheet; all numbers are pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.size = width, height
        self.parts: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, words: str, colour: str = GREY) -> None:
        """A rounded box with lines of words in its middle."""
        self.parts.append(
            f"<rect x='{x}' y='{y}' width='{width}' height='{height}' rx='8' fill='{colour}' stroke='{LINE}'/>"
        )
        lines = words.split("\n")
        for number, line in enumerate(lines):
            self.words(x + width / 2, y + height / 2 + 5 + 18 * (number - (len(lines) - 1) / 2), line)

    def words(self, x: float, y: float, words: str, *, anchor: str = "middle", small: bool = False) -> None:
        """A line of words."""
        size = " style='font-size:11.5px'" if small else ""
        self.parts.append(f"<text x='{x}' y='{y}' text-anchor='{anchor}' fill='{INK}'{size}>{escape(words)}</text>")

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through points, with a head at the last."""
        path = " ".join(f"{x},{y}" for x, y in points)
        self.parts.append(
            f"<polyline points='{path}' fill='none' stroke='{LINE}' stroke-width='1.5' marker-end='url(#head)'/>"
        )

    def bar(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A plain bar."""
        self.parts.append(
            f"<rect x='{x}' y='{y}' width='{width}' height='{height}' fill='{colour}' stroke='{LINE}' "
            "stroke-width='0.7'/>"
        )

    def svg(self) -> str:
        """The file's text."""
        width, height = self.size
        head = (
            f"<defs><marker id='head' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='8' markerHeight='8' "
            f"orient='auto'><path d='M0 0L8 4L0 8z' fill='{LINE}'/></marker></defs>"
        )
        return (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' {FONT}>{head}"
            f"<rect width='{width}' height='{height}' fill='white'/>{''.join(self.parts)}</svg>\n"
        )


def overview() -> Drawing:
    """From source and driving frame to the image."""
    sheet = Drawing(900, 330)
    sheet.box(20, 40, 130, 60, "source\n3 x 256 x 256")
    sheet.box(20, 230, 130, 60, "driving frame\n3 x 256 x 256")
    sheet.box(200, 135, 140, 60, "keypoint detector\n15 points, jacobians", BLUE)
    sheet.box(390, 135, 140, 60, "dense motion\nflow, occlusion", BLUE)
    sheet.box(390, 40, 140, 60, "encoder\nfeatures, 4 scales", GREEN)
    sheet.box(585, 70, 150, 125, "four scales, coarse\nto fine: motion, then\nappearance\ncompensated", AMBER)
    sheet.box(780, 102, 100, 60, "generator\nthe image", GREEN)
    sheet.box(585, 240, 150, 60, "two codebooks\nmotion, appearance", AMBER)
    sheet.arrow((150, 70), (388, 70))
    sheet.arrow((85, 100), (85, 150), (198, 150))
    sheet.arrow((85, 230), (85, 180), (198, 180))
    sheet.arrow((340, 165), (388, 165))
    sheet.arrow((530, 70), (558, 70), (558, 100), (583, 100))
    sheet.arrow((530, 165), (583, 165))
    sheet.arrow((660, 240), (660, 197))
    sheet.arrow((735, 132), (778, 132))
    sheet.words(265, 60, "once for each source", small=True)
    sheet.words(460, 215, "once for each frame", small=True)
    return sheet


def one_scale() -> Drawing:
    """The two compensations of a scale."""
    sheet = Drawing(900, 420)
    sheet.box(20, 30, 150, 50, "source feature f_s", GREEN)
    sheet.box(20, 120, 150, 50, "flow, occlusion\nof the scale before", BLUE)
    sheet.box(20, 300, 150, 50, "driving heat maps", BLUE)
    sheet.box(220, 30, 130, 50, "warp (flow_warp)", GREY)
    sheet.box(220, 190, 130, 60, "query\n1024 tokens", GREY)
    sheet.box(410, 190, 150, 60, "2 transformer layers\nself, then codes", GREY)
    sheet.box(410, 300, 150, 50, "motion codebook", AMBER)
    sheet.box(610, 120, 130, 60, "residual of flow\nand occlusion", BLUE)
    sheet.box(410, 30, 150, 50, "warp again, occlude", GREY)
    sheet.box(610, 30, 130, 50, "2 transformer\nlayers", GREY)
    sheet.box(610, 300, 130, 50, "appearance\ncodebook", AMBER)
    sheet.box(780, 30, 105, 50, "to the\ngenerator", GREEN)
    sheet.box(780, 120, 105, 60, "to the next\nscale", BLUE)
    sheet.arrow((170, 55), (218, 55))
    sheet.arrow((170, 140), (285, 140), (285, 82))
    sheet.arrow((245, 80), (245, 188))
    sheet.arrow((95, 170), (95, 215), (218, 215))
    sheet.arrow((170, 325), (265, 325), (265, 252))
    sheet.arrow((350, 220), (408, 220))
    sheet.arrow((485, 300), (485, 252))
    sheet.arrow((560, 220), (640, 220), (640, 182))
    sheet.arrow((610, 150), (485, 150), (485, 82))
    sheet.arrow((560, 55), (608, 55))
    sheet.arrow((705, 300), (705, 260), (755, 260), (755, 55), (742, 55))
    sheet.arrow((740, 45), (778, 45))
    sheet.arrow((740, 150), (778, 150))
    sheet.words(
        450, 395, "motion compensation refines the flow that appearance compensation then warps with", small=True
    )
    return sheet


def allocation() -> Drawing:
    """The codes that each scale may use."""
    sheet = Drawing(900, 230)
    columns = (("shared", (0, 0, 0, 0)), ("disjoint", (0, 1, 2, 3)), ("unsplit", None))
    for column, (name, starts) in enumerate(columns):
        left = 90 + column * 270
        sheet.words(left + 110, 35, name)
        for row, scale in enumerate((32, 64, 128, 256)):
            top = 55 + row * 40
            if column == 0:
                sheet.words(70, top + 16, f"{scale} px", anchor="end", small=True)
            used = range(4) if starts is None else range(starts[row], row + 1)
            for quarter in range(4):
                sheet.bar(left + quarter * 55, top, 55, 24, AMBER if quarter in used else "white")
    sheet.words(
        450, 222, "columns: quarters of the 1024 codes; coloured: those that the scale may attend to", small=True
    )
    return sheet


def relative_motion() -> Drawing:
    """The keypoints of a person driven by another."""
    sheet = Drawing(900, 190)
    boxes: Sequence[tuple[str, str]] = (
        ("driving frame t\nx_t, J_t", BLUE),
        ("minus the first\nx_t - x_0, J_t J_0^-1", GREY),
        ("scaled by the faces' size\n(--adapt-scale), strength", GREY),
        ("added to the source's\nx_s, J_s", GREEN),
    )
    for number, (words, colour) in enumerate(boxes):
        left = 20 + number * 222
        sheet.box(left, 50, 190, 70, words, colour)
        if number:
            sheet.arrow((left - 32, 85), (left - 2, 85))
    sheet.words(450, 160, "absolute motion (--motion absolute) takes x_t and J_t as they are", small=True)
    return sheet


def main(folder: Path = Path("docs/images"), /) -> None:
    """Write every drawing into a folder."""
    for draw in (overview, one_scale, allocation, relative_motion):
        (folder / f"model_{draw.__name__}.svg").write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
