"""Names of a world's variants: `original`, `bars`, `bars+noise`, `all`."""

from collections.abc import Sequence

ORIGINAL = "original"
"""The world as it is."""
ALL = "all"
"""Every variant in turn, for an evaluation; no world can be made of it."""
JOIN = "+"
"""Joins what is worn together."""


def worn(variant: str) -> tuple[str, ...]:
    """What a world wears in a variant: the names that it joins, () for `ORIGINAL`."""
    return () if variant == ORIGINAL else tuple(variant.split(JOIN))


def in_order(
    variant: str, names: Sequence[str], rivals: Sequence[tuple[str, str]] = ()
) -> str:
    """The one name of a variant, whichever order it was written in.

    Args:
      variant: `ORIGINAL`, `ALL`, or names joined with `JOIN`.
      names: all that there are, `ORIGINAL` first.
      rivals: pairs of them that cannot be worn together.

    Raises:
      ValueError: it is not one of these, or joins what does not go together.
    """
    if variant == ALL:
        return variant
    parts = variant.split(JOIN)
    others = [name for name in names if name != ORIGINAL]
    for part in parts:
        if part not in names:
            raise ValueError(
                f"env.variant is {variant!r}, but {part!r} is none; it must be "
                f"{ORIGINAL}, {ALL} (for mode=evaluate), or one or more of "
                f"{', '.join(others)}, joined with {JOIN}"
            )
    if len(set(parts)) < len(parts) or (ORIGINAL in parts and len(parts) > 1):
        raise ValueError(
            f"env.variant is {variant!r}; each of {', '.join(others)} can be named "
            f"once, and {ORIGINAL} only alone"
        )
    for pair in rivals:
        if {*pair} <= {*parts}:
            raise ValueError(
                f"env.variant is {variant!r}, but {' and '.join(pair)} change the same "
                "pixels; leave one of them out"
            )
    return JOIN.join(sorted(parts, key=names.index))
