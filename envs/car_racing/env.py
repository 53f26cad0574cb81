"""CarRacing: Gymnasium's CarRacing-v3 as pure functions of a small state."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.car_racing import cache, draw, paint, palette, physics
from envs.car_racing.car import FPS
from envs.car_racing.state import State
from envs.car_racing.track import PLAYFIELD, Roads
from envs.core import Box, Discrete, Environment, Outcome, Spec

MAX_STEPS = 1000
LAP_RULES = ("gymnasium", "intended")
CHANNELS = {"rgb": 3, "gray": 1}
FRAME_COST = 0.1
COLORS = ("original", "scalar", "channels")
SHIFT = 0.2 * 255
"""Most that `colors` moves a colour by."""
LOST = -100.0
"""Reward of the step that leaves the field."""


class World(NamedTuple):
    """The constant data of a pool of tracks.

    Attributes:
      roads: where the tracks run.
      canvas: what they look like.
    """

    roads: Roads
    canvas: draw.Canvas


class Controls(NamedTuple):
    """What the driver does: steer in [-1, 1] to the left, gas and brake in [0, 1]."""

    steer: jax.Array
    gas: jax.Array
    brake: jax.Array


def _continuous(action: jax.Array) -> Controls:
    steer, gas, brake = action
    return Controls(
        -jnp.clip(steer, -1.0, 1.0), jnp.clip(gas, 0.0, 1.0), jnp.clip(brake, 0.0, 1.0)
    )


def _discrete(action: jax.Array) -> Controls:
    """Nothing, right, left, gas, brake."""

    def where(choice: int, strength: float) -> jax.Array:
        return jnp.where(action == choice, strength, 0.0).astype(jnp.float32)

    return Controls(where(2, 0.6) - where(1, 0.6), where(3, 0.2), where(4, 0.8))


def _finished(
    lap_rule: str,
    share: float,
    tiles: jax.Array,
    before: State,
    after: State,
    contact: physics.Contact,
) -> jax.Array:
    """bool[]: the step completed the lap."""
    if lap_rule == "intended":
        at_start = (contact.touch & (contact.tile == 0)).any()
    else:
        # The first visit of tile 0 alone counts, and the car is created on it.
        at_start = (after.visited & ~before.visited)[0] % 2 == 1
    count = after.visited_count
    enough = count.astype(jnp.float32) > share * tiles.astype(jnp.float32)
    return (count == tiles) | (at_start & enough)


def make(
    seeds: Sequence[int],
    *,
    size: int = 96,
    color: str = "rgb",
    continuous: bool = True,
    lap_rule: str = "gymnasium",
    lap_complete_percent: float = 0.95,
    domain_randomize: bool = False,
    colors: str = "original",
    blob: bool = False,
) -> Environment:
    """CarRacing on the tracks of a list of Gymnasium seeds.

    Action: steer in [-1, 1] (to the right), gas and brake in [0, 1]; or one of nothing,
    right, left, gas, brake. Observation: u8[size, size, 3 or 1], the car from above and
    an instrument strip. Reward: 1000 / tiles for each tile touched for the first time,
    -0.1 a step; leaving the field ends the episode with -100, and an action that is no
    number with a reward that is none. It also ends when all
    tiles are visited or the lap is complete, and is truncated after 1,000 steps.

    Args:
      seeds: level i of the episodes is the track of `CarRacing-v3`'s
        `reset(seed=seeds[i])`; it starts as the car does after that reset.
      size: height and width of the observation in pixels.
      color: "rgb" or "gray".
      continuous: False for five choices in place of three strengths.
      lap_rule: "gymnasium", where a lap is complete if tile 0 is first visited last,
        which its start on tile 0 prevents (Gymnasium issue 1269); or "intended", where
        it is when tile 0 is touched after enough others.
      lap_complete_percent: share of the tiles, in (0, 1], that is enough.
      domain_randomize: as in Gymnasium, where each seed then has colours, and another
        track, of its own.
      colors: "original"; or those of AttentionAgent's generalisation tests, drawn at
        reset: "scalar", one number for the three channels of the road and another for
        the grass, in [-0.2, 0.2] of full scale; "channels", a number for each channel.
      blob: whether a red square stands beside the car, another of those tests.

    Raises:
      ValueError: an argument has a value that is not allowed.

    Source: Gymnasium 1.4 `car_racing.py`, Box2D 2.3; arXiv 2003.08165, section 4.2.
    """
    _check(seeds, size, color, lap_rule, lap_complete_percent, colors)
    roads, canvas = cache.load_or_build(seeds, size, domain_randomize)
    spec = Spec(
        observation=Box((size, size, CHANNELS[color]), (0.0,), (255.0,), "uint8"),
        action=Box((3,), (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        if continuous
        else Discrete(5),
        max_steps=MAX_STEPS,
        fps=FPS,
    )
    controls = _continuous if continuous else _discrete

    def reset(world: World, episode: jax.Array, key: jax.Array) -> State:
        state = physics.reset(world.roads, episode)
        if colors == "original":
            return state
        channels = 1 if colors == "scalar" else 3
        shift = jax.random.uniform(key, (2, channels), minval=-SHIFT, maxval=SHIFT)
        return state._replace(ground=palette.shifted(state.ground, shift))

    def step(
        world: World, state: State, action: jax.Array, key: jax.Array
    ) -> tuple[State, Outcome]:
        del key
        moved, contact = physics.step(world.roads, state, *controls(action))
        tiles = world.roads.tracks.count.at[state.track].get(mode="promise_in_bounds")
        # What the reset touched is paid for by the first step.
        paid = jnp.where(state.step == 0, 0, state.visited_count)
        gained = (moved.visited_count - paid).astype(jnp.float32)
        # What is no number, after an action that was none, is not on the field.
        lost = ~((jnp.abs(moved.x) <= PLAYFIELD) & (jnp.abs(moved.y) <= PLAYFIELD))
        finished = _finished(
            lap_rule, lap_complete_percent, tiles, state, moved, contact
        )
        terminated = lost | finished
        reward = gained * 1000.0 / tiles.astype(jnp.float32) - FRAME_COST
        reward = jnp.where(lost, LOST, reward)
        return moved, Outcome(
            reward=jnp.where(jnp.isfinite(moved.x), reward, jnp.nan),
            terminated=terminated,
            truncated=(moved.step >= MAX_STEPS) & ~terminated,
            metrics={
                "visited": moved.visited_count.astype(jnp.float32)
                / tiles.astype(jnp.float32)
            },
        )

    def observe(world: World, state: State) -> jax.Array:
        return draw.observe(world.canvas, state, size, color, blob)

    def background(world: World, state: State) -> jax.Array:
        return draw.background(world.canvas, state, size, blob)

    def painted(world: World, state: State, height: int, width: int) -> np.ndarray:
        track = jax.tree.map(lambda a: np.asarray(a[state.track]), world.roads.tracks)
        return paint.paint(track, state, height, width, blob)

    return Environment(
        spec=spec,
        world=jax.device_put(World(roads, canvas)),
        reset=reset,
        step=step,
        observe=observe,
        paint=painted,
        background=background,
    )


def _check(
    seeds: Sequence[int],
    size: int,
    color: str,
    lap_rule: str,
    share: float,
    colors: str,
) -> None:
    if len(seeds) == 0:
        raise ValueError("seeds is empty; CarRacing needs at least one track")
    for seed in seeds:
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(
                f"seed {seed!r} names no track; Gymnasium's seeds are whole numbers, 0 "
                "and up"
            )
    if not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(
            f"size is {size!r}; it must be a whole number of pixels, at least 1"
        )
    if color not in CHANNELS:
        raise ValueError(f"color is {color!r}; it must be one of {list(CHANNELS)}")
    if colors not in COLORS:
        raise ValueError(f"colors is {colors!r}; it must be one of {COLORS}")
    if lap_rule not in LAP_RULES:
        raise ValueError(f"lap_rule is {lap_rule!r}; it must be one of {LAP_RULES}")
    if not 0 < share <= 1:
        raise ValueError(
            f"lap_complete_percent is {share}; it must be greater than 0 and at most 1"
        )
