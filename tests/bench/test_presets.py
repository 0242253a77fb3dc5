import pytest

from bench import presets
from bench.model import make_scene


@pytest.mark.parametrize("name", ["mini"])
def test_groups_have_all_parameters_and_all_operations(name: str) -> None:
    scene = make_scene(name, "cpu")
    *groups, whole = presets.cost(scene, batch=1, rounds=1)
    assert [group for group, *_ in groups] == list(presets.GROUPS.values())
    assert all(count > 0 and operations > 0 and seconds > 0 for _, count, operations, seconds in groups)
    assert whole[1] == sum(parameter.numel() for parameter in scene.talker.parameters())
    assert whole[2] == sum(operations for group, _, operations, _ in groups if group != presets.ENCODER)


def test_the_table_names_preset_stage_and_machine() -> None:
    lines = list(presets.table(["mini"], "cpu", batch=1, rounds=1))
    assert "torch" in lines[0] and lines[2].startswith("| preset |")
    assert sum(line.startswith("| `mini` |") for line in lines) == len(presets.GROUPS) + 1
