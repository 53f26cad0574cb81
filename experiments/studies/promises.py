"""Numbers that were promised, each beside what a study measures."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Promise(NamedTuple):
    """A number that was promised, and what was measured.

    Attributes:
      what: it is of.
      bar: the promise.
      least: whether it is a lower bound, else an upper one.
      measured: not-a-number where it was not.
    """

    what: str
    bar: float
    least: bool
    measured: float

    @property
    def kept(self) -> str:
        """Yes, no, or nothing where it was not measured."""
        if math.isnan(self.measured):
            return ""
        within = self.measured >= self.bar if self.least else self.measured <= self.bar
        return "yes" if within else "no"


def table(promises: Sequence[Promise]) -> str:
    """The promises as Markdown."""
    lines = ["| promised | bar | measured | kept |", "|---|---|---|---|"]
    for promise in promises:
        sign = ">=" if promise.least else "<="
        lines.append(
            f"| {promise.what} | {sign} {promise.bar:g} | {shown(promise.measured)} "
            f"| {promise.kept} |"
        )
    return "\n".join(lines)


def shown(number: float, digits: int = 3) -> str:
    """A number, or - where there is none."""
    return "-" if math.isnan(number) else f"{number:.{digits}g}"
