"""Numbers that were promised, each beside what a study measures."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Promise(NamedTuple):
    """A number that was promised, and what was measured.

    Attributes:
      what: it is of.
      bar: the promise.
      least: whether it is a lower bound, else an upper one.
      each: every time that it was measured.
    """

    what: str
    bar: float
    least: bool
    each: Sequence[float]

    @property
    def measured(self) -> float:
        """The median; not-a-number where it was not measured."""
        return statistics.median(self.each) if self.each else math.nan

    @property
    def kept(self) -> str:
        """Yes, no, or nothing where it was not measured."""
        if not self.each:
            return ""
        within = self.measured >= self.bar if self.least else self.measured <= self.bar
        return "yes" if within else "no"


def table(promises: Sequence[Promise]) -> str:
    """The promises as Markdown, with the least and the most of several measurements."""
    lines = ["| promised | bar | measured | kept |", "|---|---|---|---|"]
    for promise in promises:
        sign = ">=" if promise.least else "<="
        measured = shown(promise.measured)
        if len(promise.each) > 1:
            least, most = (shown(end(promise.each)) for end in (min, max))
            measured = f"{measured} ({least} to {most})"
        lines.append(
            f"| {promise.what} | {sign} {promise.bar:g} | {measured} | {promise.kept} |"
        )
    return "\n".join(lines)


def shown(number: float, digits: int = 3) -> str:
    """A number, or - where there is none."""
    return "-" if math.isnan(number) else f"{number:.{digits}g}"
