"""The ways of a warp through a kernel's machine code, in instructions issued.

A kernel holds code for what seldom happens: divisions of denormal numbers, rows that do not fill vectors, masks. So a
way is told by its marks, the instructions that it must have, and is the shortest of those that have them.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

Instruction = tuple[int, str]  # address, and what it says
ALL = math.inf  # of a mark: as many as any way has

_JUMP = re.compile(r"\bBRA\b[^;]*?\b0x([0-9a-f]+)")
_CALL = re.compile(r"\bCALL\b[^;]*?\b0x([0-9a-f]+)")
_ALWAYS = re.compile(r"(BRA 0x|EXIT|RET|BRX)")


class Way(NamedTuple):
    """The instructions of a way, called functions counted whole."""

    length: int
    code: tuple[str, ...]

    def count(self, mark: str) -> int:
        """The number of its instructions that begin with `mark`."""
        return sum(has_mark(what, mark) for what in self.code)

    def then(self, other: "Way") -> "Way":
        """This, then the other."""
        return Way(self.length + other.length, self.code + other.code)


class NoWay(LookupError):
    """The code has no way with these marks: it is not what a description of the kernel says."""


def has_mark(what: str, mark: str) -> bool:
    """Whether an instruction, its predicate aside, begins with `mark`."""
    return re.sub(r"^@!?U?P\d+ +", "", what).startswith(mark)


class Ways:
    """The ways through one kernel. Jumps backwards end an iteration, so that a way takes every loop once at most."""

    def __init__(self, code: Sequence[Instruction]) -> None:
        self._code = list(code)
        self._blocks = list(_blocks(self._code))
        self._index = {block[0][0]: number for number, block in enumerate(self._blocks)}
        # Without a condition jumps backwards come from code that lies apart, not from the end of a loop; or from behind
        # the jump that leaves the loop.
        jumps = [
            (at, _JUMP.search(what))
            for (_, before), (at, what) in zip([(0, ""), *self._code], self._code, strict=False)
            if not _ALWAYS.match(what) or _leaves(before, at)
        ]
        loops = [(int(to[1], 16), at) for at, to in jumps if to is not None and int(to[1], 16) < at]
        self._loops = sorted(loops, key=lambda ends: ends[1] - ends[0])  # of inner loops first
        self._called: dict[str, int] = {}  # lengths of functions
        self._found: dict[object, Way | None] = {}  # the ways asked for so far

    def iteration(self, marks: Mapping[str, float], outer: int = 0) -> Way:
        """Through the innermost loop that has the marks, or through the `outer`-th of those around it."""
        found = 0
        for first, last in self._loops:
            way = self._shortest(first, last, marks)
            if way is not None and found == outer:
                return way
            found += way is not None
        raise NoWay(f"no loop has {dict(marks)}")

    def whole(self, marks: Mapping[str, float]) -> Way:
        """From the first instruction to an exit."""
        return self._to_exit(0, marks)

    def around(self, marks: Mapping[str, float]) -> Way:
        """From the first instruction to the innermost loop that has the marks, and from that loop to an exit."""
        for first, last in self._loops:
            if self._shortest(first, last, marks) is None:
                continue
            begins = [way for end in self._ahead(first) if (way := self._shortest(0, end, {}))]
            begin = min(begins, default=Way(0, ()))  # the code may begin with the loop
            return begin.then(self._to_exit(self._code[self._at(last) + 1][0], {}))
        raise NoWay(f"no loop has {dict(marks)}")

    def _ahead(self, first: int) -> list[int]:
        """The ends of the blocks that a block at `first` follows, itself and those behind it aside."""
        of_block = self._index[first]
        return [self._blocks[n][-1][0] for n in range(of_block) if of_block in self._followers(n)]

    def _to_exit(self, first: int, marks: Mapping[str, float]) -> Way:
        ways = [way for end in self._exits() if end >= first and (way := self._shortest(first, end, marks))]
        if not ways:
            raise NoWay(f"no way has {dict(marks)}")
        return min(ways)

    def _exits(self) -> list[int]:
        return [block[-1][0] for block in self._blocks if any(has_mark(what, "EXIT") for _, what in block)]

    def _at(self, address: int) -> int:
        return next(number for number, (at, _) in enumerate(self._code) if at == address)

    def _shortest(self, first: int, last: int, marks: Mapping[str, float]) -> Way | None:
        """From the block that begins at `first` to the end of the one that ends at `last`, or None."""
        asked = (first, last, tuple(marks.items()))
        if asked not in self._found:
            self._found[asked] = self._search(first, last, marks)
        return self._found[asked]

    def _search(self, first: int, last: int, marks: Mapping[str, float]) -> Way | None:
        names = list(marks)
        # Of each block that was reached: the marks met ahead of it, and the shortest way with those.
        reached: dict[int, dict[tuple[int, ...], Way]] = {self._index[first]: {(0,) * len(names): Way(0, ())}}
        for number in range(self._index[first], len(self._blocks)):
            if number not in reached:
                continue
            texts = tuple(what for _, what in self._blocks[number])
            own = Way(sum(self._cost(what) for what in texts), texts)
            passed: dict[tuple[int, ...], Way] = {}
            for met, way in reached.pop(number).items():
                counts = (int(min(n + own.count(name), marks[name])) for n, name in zip(met, names, strict=True))
                _keep(passed, tuple(counts), way.then(own))
            if self._blocks[number][-1][0] == last:
                return _best(passed, tuple(marks.values()))
            for follower in self._followers(number):
                for met, way in passed.items():
                    _keep(reached.setdefault(follower, {}), met, way)
        return None

    def _followers(self, number: int) -> Iterator[int]:
        at, what = self._blocks[number][-1]
        if not _ALWAYS.match(what) and number + 1 < len(self._blocks):
            yield number + 1
        target = _JUMP.search(what)
        if target is not None and int(target[1], 16) > at:
            yield self._index[int(target[1], 16)]

    def _cost(self, what: str) -> int:
        """Itself, and the whole of a function that it calls."""
        target = _CALL.search(what)
        if target is None:
            return 1
        if target[1] not in self._called:
            function = self._code[self._at(int(target[1], 16)) :]
            self._called[target[1]] = 1 + next(i for i, (_, inner) in enumerate(function) if has_mark(inner, "RET"))
        return 1 + self._called[target[1]]


def _leaves(what: str, at: int) -> bool:
    """Whether an instruction is a jump with a condition to behind the address."""
    target = _JUMP.search(what)
    return target is not None and _ALWAYS.match(what) is None and int(target[1], 16) > at


def _keep(ways: dict[tuple[int, ...], Way], met: tuple[int, ...], way: Way) -> None:
    if met not in ways or way.length < ways[met].length:
        ways[met] = way


def _best(ways: Mapping[tuple[int, ...], Way], wanted: Sequence[float]) -> Way | None:
    """The shortest with the marks wanted; where all are, with as many as there can be."""
    most = [max((met[i] for met in ways), default=0) for i in range(len(wanted))]
    least = [most[i] if number == ALL else number for i, number in enumerate(wanted)]
    if ALL in wanted and not all(least):
        return None
    fitting = [way for met, way in ways.items() if all(n >= m for n, m in zip(met, least, strict=True))]
    return min(fitting, key=lambda way: way.length, default=None)


def _blocks(code: Sequence[Instruction]) -> Iterator[list[Instruction]]:
    """Runs of instructions that are entered at the first and left at the last."""
    starts = {int(target[1], 16) for _, what in code if (target := _JUMP.search(what))}
    block: list[Instruction] = []
    for at, what in code:
        if block and at in starts:
            yield block
            block = []
        block.append((at, what))
        if re.search(r"\b(BRA|EXIT|RET|BRX)\b", what):
            yield block
            block = []
    if block:
        yield block
