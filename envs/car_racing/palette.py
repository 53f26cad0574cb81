"""The 256 colours of the playfield: each is a mixture of what lies on the ground.

A code names a mixture, not a colour, so that another set of ground colours needs only
another table of 256 rows.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from envs.car_racing import camera

BLACK, DARK, LIGHT, ROAD, WHITE, RED = range(6)
"""Ground: outside, the two greens of the grass, road, the two colours of kerbs."""
GROUND = np.array(
    [
        (0, 0, 0),
        (102, 204, 102),
        (102, 230, 102),
        (102, 102, 102),
        (255, 255, 255),
        (255, 0, 0),
    ],
    "u1",
)
"""u8[6, 3], their colours in Gymnasium."""
TINT = (0, 2, 5)
"""Grey levels that an unvisited road tile is lighter than `ROAD`, by index % 3."""
ROAD_CODES = 48
"""Codes of pure road, at most; see `tint.period`."""
ROAD_CODE = 1
"""The first of them; code 0 is pure black."""
SAMPLES = 16
"""Samples that a texel averages; mixtures are counted in them."""


def _splits(total: int, parts: int) -> list[tuple[int, ...]]:
    """Every way to write `total` as an ordered sum of positive `parts`."""
    return [
        s for s in itertools.product(range(1, total), repeat=parts) if sum(s) == total
    ]


# Pairs and triples that touch on the ground, with the steps their blend is cut into:
# the finer, the larger the difference of the colours and the more often they meet.
_BLENDS = (
    *(((a, b), 16) for a, b in [(ROAD, DARK), (ROAD, LIGHT)]),
    *(((a, b), 8) for a in (WHITE, RED) for b in (ROAD, DARK, LIGHT)),
    ((WHITE, RED), 8),
    *(((a, b), 4) for a, b in [(DARK, LIGHT), (BLACK, DARK), (BLACK, LIGHT)]),
    *(((WHITE, RED, a), 6) for a in (ROAD, DARK, LIGHT)),
    *(((a, ROAD, b), 6) for a in (WHITE, RED) for b in (DARK, LIGHT)),
    ((ROAD, DARK, LIGHT), 6),
)


@functools.cache
def mixtures() -> np.ndarray:
    """f32[256, 6], the share of each kind of ground in each code; unused rows are 0."""
    pure = np.eye(6)
    rows = [pure[BLACK], *[pure[ROAD]] * ROAD_CODES]
    rows += [pure[kind] for kind in (DARK, LIGHT, WHITE, RED)]
    for kinds, steps in _BLENDS:
        for split in _splits(steps, len(kinds)):
            rows.append(np.array(split) @ pure[list(kinds)] / steps)
    table = np.zeros((256, 6), "f4")
    table[: len(rows)] = rows
    return table


@functools.cache
def code_of_counts() -> np.ndarray:
    """u8[17**5], the code nearest to each mixture of `SAMPLES` samples.

    The index is the sum of the samples' `sample_weights`.
    """
    base = SAMPLES + 1
    packed = np.arange(base**5)
    counts = np.stack([packed // base**k % base for k in range(5)], axis=1)
    packed, counts = (a[counts.sum(1) <= SAMPLES] for a in (packed, counts))
    black = SAMPLES - counts.sum(1, keepdims=True)
    shares = np.concatenate([black, counts], axis=1) / SAMPLES
    used = mixtures()[mixtures().any(1)].astype("f8")
    # Colour decides; the shares themselves break ties, since a road-and-light-green
    # blend may have dark green's colour.
    space = np.concatenate([GROUND / 1.0, 40 * np.eye(6)], axis=1)
    a, b = shares @ space, used @ space
    distance = (b**2).sum(1) - 2 * a @ b.T
    lookup = np.zeros(base**5, "u1")
    lookup[packed] = distance.argmin(1)
    return lookup


def sample_weights() -> np.ndarray:
    """i32[256], what one sample of a label adds to the index of `code_of_counts`.

    Labels are the kinds of ground, except that road of code `ROAD_CODE` + i is the
    label `len(GROUND)` + i.
    """
    weights = np.zeros(256, "i4")
    weights[1 : len(GROUND)] = (SAMPLES + 1) ** np.arange(len(GROUND) - 1)
    weights[len(GROUND) :] = weights[ROAD]
    return weights


def colours(ground: jax.Array) -> jax.Array:
    """The colour of each code as Gymnasium shows it, all tiles visited.

    Args:
      ground: f32[6, 3], RGB in [0, 255] of each kind of ground.

    Returns:
      u8[256, 3].
    """
    shown = camera.darkened(ground)
    # Six terms, written out: a product of so small matrices is slow in a batch.
    table = sum(mixtures()[:, k, None] * shown[k : k + 1] for k in range(len(GROUND)))
    return jnp.round(jnp.asarray(table)).astype(jnp.uint8)


def shifted(ground: jax.Array, shift: jax.Array) -> jax.Array:
    """Road and grass in other colours.

    Args:
      ground: f32[6, 3], RGB in [0, 255] of each kind of ground.
      shift: f32[2, 3] or f32[2, 1], added to the colours of the road and of the grass.

    Returns:
      f32[6, 3], clipped to [0, 255].
    """
    kinds = np.zeros((len(GROUND), 2), "f4")
    kinds[ROAD, 0] = kinds[[DARK, LIGHT], 1] = 1
    change = sum(kinds[:, k, None] * shift[k : k + 1] for k in range(2))
    return jnp.clip(ground + change, 0.0, 255.0)


def randomized(rng: np.random.Generator) -> np.ndarray:
    """f32[6, 3], colours of road and grass as Gymnasium's domain randomisation draws.

    Args:
      rng: advanced by what Gymnasium draws before it makes a track.
    """
    ground = GROUND.astype("f4")
    # pygame cuts fractions off.
    ground[ROAD] = np.floor(rng.uniform(0, 210, size=3))
    dark = rng.uniform(0, 210, size=3)
    light = dark.copy()
    light[rng.integers(3)] += 20
    ground[DARK], ground[LIGHT] = np.floor(dark), np.floor(light)
    return ground
