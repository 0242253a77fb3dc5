"""Ways through machine code as cuobjdump prints it."""

import pytest

from bench.gpu_ways import ALL, Instruction, NoWay, Ways, has_mark

# A loop of two rows: each is loaded, and skipped where it lies outside; a division calls a function where it must.
ROWS: list[Instruction] = [
    (0x00, "MOV R1, c[0x0][0x28]"),
    (0x10, "@!P0 BRA 0x30"),
    (0x20, "CALL.REL.NOINC 0x110"),
    (0x30, "LDG.E.128 R4, desc[UR4][R2.64]"),
    (0x40, "@P1 BRA 0x90"),
    (0x50, "@!P2 BRA 0x70"),
    (0x60, "CALL.REL.NOINC 0x110"),
    (0x70, "MUFU.RCP R5, R4"),
    (0x80, "STG.E.128 desc[UR4][R2.64], R4"),
    (0x90, "@P3 BRA 0xc0"),
    (0xA0, "FADD R5, R4, R4"),
    (0xB0, "@P4 STG.E.128 desc[UR4][R2.64+0x10], R4"),
    (0xC0, "@!P5 BRA 0x30"),
    (0xD0, "STG.E desc[UR4][R2.64], R4"),
    (0xE0, "EXIT"),
    (0xF0, "NOP"),
    (0x110, "MOV R6, R7"),
    (0x120, "FFMA R6, R7, R8, R9"),
    (0x130, "RET.REL.NODEC R2 0x0"),
]


def test_an_iteration_is_the_shortest_that_has_the_marks() -> None:
    ways = Ways(ROWS)
    assert ways.iteration({"LDG": 1}).length == 4
    assert ways.iteration({"LDG": 1, "STG": 1}).length == 6  # by the second row alone, which divides nothing
    both = ways.iteration({"LDG.E.128": 1, "STG.E.128": 2})
    assert (both.length, both.count("MUFU"), both.count("CALL")) == (9, 1, 0)
    assert ways.iteration({"STG": ALL}) == both


def test_a_function_counts_whole_where_no_way_spares_it() -> None:
    without = [(at, what) for at, what in ROWS if at != 0x10]
    assert Ways(without).around({"LDG": 1}).length == 1 + (1 + 3) + 2


def test_what_lies_around_a_loop_is_the_way_to_it_and_from_it() -> None:
    assert Ways(ROWS).around({"LDG": 1}).length == 2 + 2
    assert Ways(ROWS).whole({"STG": 3}).length == 2 + 9 + 2


def test_loops_around_a_loop_come_after_it() -> None:
    code = [
        (0x00, "LDG.E R4, desc[UR4][R2.64]"),
        (0x10, "FFMA R4, R4, R4, R5"),
        (0x20, "@P0 BRA 0x10"),
        (0x30, "FADD R4, R4, R5"),
        (0x40, "@P1 BRA 0x0"),
        (0x50, "EXIT"),
        (0x60, "FFMA R4, R4, R4, R5"),
        (0x70, "BRA 0x30"),  # lies apart, and is no loop
    ]
    ways = Ways(code)
    assert [ways.iteration({"FFMA": 1}, outer).length for outer in (0, 1)] == [2, 5]
    with pytest.raises(NoWay, match="FFMA"):
        ways.iteration({"FFMA": 1}, 2)


def test_a_jump_behind_the_one_that_leaves_ends_a_loop() -> None:
    code = [
        (0x00, "MOV R1, c[0x0][0x28]"),
        (0x10, "HGMMA.64x32x16.F32.BF16 R24, gdesc[UR8], R24"),
        (0x20, "@P0 BRA 0x10"),
        (0x30, "FMNMX R4, R5, R4, !PT"),
        (0x40, "@P1 BRA 0x60"),
        (0x50, "BRA 0x0"),
        (0x60, "EXIT"),
    ]
    ways = Ways(code)
    assert [ways.iteration({"HGMMA": ALL}, outer).length for outer in (0, 1)] == [2, 6]


@pytest.mark.parametrize("marks", [{"HMMA": 1}, {"HMMA": ALL}, {"LDG": 2}])
def test_code_without_the_marks_is_an_error(marks: dict[str, float]) -> None:
    ways = Ways(ROWS)
    for search in (ways.iteration, ways.whole, ways.around):
        with pytest.raises(NoWay):
            search(marks)


@pytest.mark.parametrize(
    ("what", "mark", "expected"),
    [
        ("LDG.E.128 R4, desc[UR4][R2.64]", "LDG.E ", False),
        ("LDG.E R4, desc[UR4][R2.64]", "LDG.E ", True),
        ("@!P0 MUFU.EX2 R4, R4", "MUFU.EX2", True),
        ("@!UP0 UIADD3 UR4, UR4, 0x1, URZ", "UIADD3", True),
    ],
)
def test_a_mark_is_how_an_instruction_begins(what: str, mark: str, expected: bool) -> None:
    assert has_mark(what, mark) is expected
