"""MediaPipe's attention mesh from its .tflite file: LiteRT runs the standard operations, numpy the three custom ones.

The network finds 468 points in an image of a face, cuts lips and eyes out of its own features with them, and refines
those. The cutting is done by operations that MediaPipe's own builds of LiteRT have and the published package lacks.
"""

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbtalk.errors import WeightsError

Array = NDArray[np.float32]

INPUT_SIZE = 192
FACE_FLAG = "conv_faceflag"  # logit of there being a face
# Points in the order of `AttentionMesh`, by the names of the tensors: how many each, and how many coordinates.
OUTPUTS = {
    "output_mesh_identity": (468, 3),
    "output_lips": (80, 2),
    "output_left_eye": (71, 2),
    "output_right_eye": (71, 2),
    "output_left_iris": (5, 2),
    "output_right_iris": (5, 2),
}


class AttentionMesh:
    """The network as a function: float32 (192, 192, 3) in [0, 1] -> points (700, 3) in its pixels, and the face logit.

    The third coordinate is the depth, away from the camera, of the first 468; the refined points have none, but 0.

    Args:
        path: face_landmark_with_attention.tflite.

    Raises:
        ImportError: ai-edge-litert is not installed.
        WeightsError: the file is another model, or none.
    """

    def __init__(self, path: Path) -> None:
        from ai_edge_litert import schema_py_generated as schema

        try:
            model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
            graph = model.subgraphs[0]
            names = {tensor.name.decode(): index for index, tensor in enumerate(graph.tensors)}
            self._outputs = {name: names[name] for name in (*OUTPUTS, FACE_FLAG)}
            self._input = int(graph.inputs[0])
            self._steps = list(_steps(schema, model, set(self._outputs.values())))
        except Exception as error:  # the parser of flatbuffers raises nearly anything on damaged files
            raise WeightsError(f"{path}: is not MediaPipe's face_landmark_with_attention.tflite") from error

    def __call__(self, image: Array) -> tuple[Array, float]:
        """See the class."""
        values: dict[int, Array] = {self._input: image[None]}
        for step in self._steps:
            step(values)
        points = [values[self._outputs[name]].reshape(shape) for name, shape in OUTPUTS.items()]
        return np.concatenate([np.pad(part, ((0, 0), (0, 3 - part.shape[1]))) for part in points]), float(
            values[self._outputs[FACE_FLAG]].item()
        )


Step = Callable[[dict[int, Array]], None]  # reads and adds tensors by their index in the graph


def _steps(schema: Any, model: Any, results: set[int]) -> Iterator[Step]:
    """The graph as functions in order: each run of standard operations is a model of its own."""
    graph = model.subgraphs[0]
    operators = list(graph.operators)

    def custom(operator: Any) -> str | None:
        code = model.operatorCodes[operator.opcodeIndex].customCode
        return None if code is None else code.decode()

    done = 0
    for name, run in groupby(operators, custom):
        part = list(run)
        done += len(part)
        if name is None:
            wanted = results | {int(index) for operator in operators[done:] for index in operator.inputs}
            yield _standard(schema, model, part, wanted)
        else:
            yield from (_custom(CUSTOM[name], operator) for operator in part)


def _standard(schema: Any, model: Any, operators: list[Any], wanted: set[int]) -> Step:
    """Standard operations as a LiteRT model that gives those of their outputs that are `wanted`."""
    import flatbuffers
    from ai_edge_litert.interpreter import Interpreter

    graph = model.subgraphs[0]
    made = {int(index) for operator in operators for index in operator.outputs}
    used = {int(index) for operator in operators for index in operator.inputs if index >= 0} - made
    inputs = sorted(index for index in used if model.buffers[graph.tensors[index].buffer].data is None)
    outputs = sorted(made & wanted)
    part = schema.SubGraphT()
    part.tensors, part.operators, part.inputs, part.outputs = graph.tensors, operators, inputs, outputs
    alone = schema.ModelT()
    alone.version, alone.operatorCodes, alone.buffers = model.version, model.operatorCodes, model.buffers
    alone.subgraphs = [part]
    builder = flatbuffers.Builder()
    builder.Finish(alone.Pack(builder), b"TFL3")
    interpreter = Interpreter(model_content=bytes(builder.Output()), num_threads=1)
    interpreter.allocate_tensors()
    slots = list(zip(inputs, [detail["index"] for detail in interpreter.get_input_details()], strict=True))
    places = list(zip(outputs, [detail["index"] for detail in interpreter.get_output_details()], strict=True))

    def step(values: dict[int, Array]) -> None:
        for index, slot in slots:
            interpreter.set_tensor(slot, values[index])
        interpreter.invoke()
        values.update({index: interpreter.get_tensor(place) for index, place in places})

    return step


def _custom(function: Callable[..., Array], operator: Any) -> Step:
    from flatbuffers import flexbuffers

    inputs, output = [int(index) for index in operator.inputs], int(operator.outputs[0])
    options = flexbuffers.Loads(bytes(operator.customOptions)) if operator.customOptions is not None else {}

    def step(values: dict[int, Array]) -> None:
        values[output] = function(*(values[index][0] for index in inputs), **options)[None].astype(np.float32)

    return step


def crop_matrix(
    landmarks: Array,
    *,
    left_rotation_idx: int,
    right_rotation_idx: int,
    target_rotation_radians: float,
    subset_idxs: list[int],
    scale_x: float,
    scale_y: float,
    output_width: int,
    output_height: int,
) -> Array:
    """Landmarks (P, 3) -> (4, 4): from the pixels of a crop around some of them, turned by two of them, to theirs."""
    points = landmarks[:, :2]
    across = points[right_rotation_idx] - points[left_rotation_idx]
    angle = np.arctan2(across[1], across[0]) - target_rotation_radians
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    upright = points[np.asarray(subset_idxs).ravel()] @ turn
    low, high = upright.min(0), upright.max(0)
    scaled = turn * ((high - low) * (scale_x, scale_y) / (output_width, output_height))
    matrix = np.eye(4, dtype=np.float32)
    matrix[:2, :2] = scaled
    matrix[:2, 3] = turn @ ((low + high) / 2) - scaled @ (output_width / 2, output_height / 2)
    return matrix


def crop_features(features: Array, matrix: Array, *, output_width: int, output_height: int) -> Array:
    """Features (H, W, C) at the places of the crop's pixels, bilinear, zero outside -> (height, width, C)."""
    height, width = features.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(output_width), np.arange(output_height)), axis=-1) + 0.5
    places = grid @ matrix[:2, :2].T + matrix[:2, 3] - 0.5
    inside = ((places >= 0) & (places <= (width - 1, height - 1))).all(-1, keepdims=True)
    low = np.clip(np.floor(places), 0, (width - 1, height - 1)).astype(int)
    high = np.minimum(low + 1, (width - 1, height - 1))
    right, lower = np.split(places - low, 2, axis=-1)
    upper_row = features[low[..., 1], low[..., 0]] * (1 - right) + features[low[..., 1], high[..., 0]] * right
    lower_row = features[high[..., 1], low[..., 0]] * (1 - right) + features[high[..., 1], high[..., 0]] * right
    return np.where(inside, upper_row * (1 - lower) + lower_row * lower, 0)


def move_landmarks(landmarks: Array, matrix: Array) -> Array:
    """Landmarks (P, 2) through a (4, 4) matrix."""
    return landmarks @ matrix[:2, :2].T + matrix[:2, 3]


CUSTOM: dict[str, Callable[..., Array]] = {
    "Landmarks2TransformMatrix": crop_matrix,
    "TransformTensorBilinear": crop_features,
    "TransformLandmarks": move_landmarks,
}
