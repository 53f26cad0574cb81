"""What a world is: data in frozen pytrees, behaviour in NamedTuples of pure functions.

Shapes: B worlds, T time, H W C image. This module imports no simulator.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax import lax

State: TypeAlias = Any
"""A world's state: a pytree of arrays, opaque to everyone but the world itself."""
World: TypeAlias = Any
"""A world's large constant data (a pool of tracks): a pytree, always an argument."""


class Box(NamedTuple):
    """An array within bounds.

    `low` and `high` are tuples with one entry per component of a flat action, or of
    length 1 where all components share the bound (images: (0,) and (255,)).
    """

    shape: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    dtype: str = "float32"


class Discrete(NamedTuple):
    """One of `n` choices, an i32 scalar in [0, n)."""

    n: int


class Spec(NamedTuple):
    """The static, hashable facts of a world.

    Attributes:
      observation: the image, u8[H, W, C]; of some simulators on the host the pair of it
        and a vector f32[n] of what else is known (proprioception).
      action: f32 vector within a `Box`, or a `Discrete` choice.
      max_steps: steps after which an episode is truncated at the latest.
      fps: steps per second of simulated time, for videos.
      action_repeat: game frames that one step plays; each is a frame in a video.
    """

    observation: Box | tuple[Box, Box]
    action: Box | Discrete
    max_steps: int
    fps: int
    action_repeat: int = 1

    @property
    def image(self) -> Box:
        """The image of an observation, whether it is all of it or not."""
        seen = self.observation
        return seen if isinstance(seen, Box) else seen[0]


class Outcome(NamedTuple):
    """What one step returned.

    Attributes:
      reward: f32[].
      terminated: bool[], the world ended the episode: its value afterwards is 0.
      truncated: bool[], the clock ended it: its value afterwards is not 0.
      metrics: named scalars, for logs only.
    """

    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    metrics: Mapping[str, jax.Array]


class Environment(NamedTuple):
    """One world, as pure functions of its state.

    Attributes:
      spec: static facts.
      world: pytree of constant arrays, () where there is none. It is an argument of
        every function so that another pool of the same shapes never retraces.
      reset: (world, episode i32[], key) -> State. `episode` names the level: an index
        into the pool, or a simulator's seed.
      step: (world, State, action, key) -> (State, Outcome). Moves, draws nothing.
      observe: (world, State) -> u8[H, W, C], the picture for the agent.
      paint: (world, State, height, width) -> u8[height, width, 3] on the host, in
        numpy: the same state and camera, large and smooth, for people.
      background: (world, State) -> bool[H, W], the pixels that a distraction may
        replace, or None where the world cannot tell.
    """

    spec: Spec
    world: World
    reset: Callable[[World, jax.Array, jax.Array], State]
    step: Callable[[World, State, jax.Array, jax.Array], tuple[State, Outcome]]
    observe: Callable[[World, State], jax.Array]
    paint: Callable[[World, State, int, int], np.ndarray]
    background: Callable[[World, State], jax.Array] | None = None


class Loop(NamedTuple):
    """The two loop primitives that a rollout is written with.

    Attributes:
      scan: (body, carry, xs, length) -> (carry, ys), as `jax.lax.scan`.
      until: (done, body, carry) -> carry, repeats `body` until `done(carry)`.
    """

    scan: Callable[..., Any]
    until: Callable[..., Any]


def _until(done: Callable, body: Callable, carry: Any) -> Any:
    return lax.while_loop(lambda c: ~done(c), body, carry)


LAX = Loop(scan=lax.scan, until=_until)
"""The loops of worlds that are JAX themselves."""


class VectorEnv(NamedTuple):
    """The same world B times, in lockstep.

    Attributes:
      spec, world: as in `Environment`.
      size: B.
      loop: the loops that drive it.
      reset: (world, episodes i32[B], keys [B]) -> states.
      step: (world, states, actions [B, ...], keys [B]) -> (states, Outcome [B]).
      observe: (world, states) -> u8[B, H, W, C].
      restart: (world, states, done bool[B], episodes, keys) -> states, where the done
        worlds have begun the given episodes and the others go on.
    """

    spec: Spec
    world: World
    size: int
    loop: Loop
    reset: Callable[[World, jax.Array, jax.Array], State]
    step: Callable[[World, State, jax.Array, jax.Array], tuple[State, Outcome]]
    observe: Callable[[World, State], jax.Array]
    restart: Callable[[World, State, jax.Array, jax.Array, jax.Array], State]


class Moment(NamedTuple):
    """What an episode of a simulator on the host has just come to.

    Attributes:
      observation: u8[H, W, C], or the pair of it and a vector f32[n] (`Spec`); the
        simulator's own memory, overwritten when the next action is played.
      reward: of the last decision; 0 at the beginning.
      terminated, truncated: whether and how the last decision ended the episode.
      frames: game frames that the last decision played.
      paintings: u8[height, width, 3] each: the first picture, or one for each game
        frame of the decision; () where none were asked for.
    """

    observation: np.ndarray | tuple[np.ndarray, np.ndarray]
    reward: float
    terminated: bool
    truncated: bool
    frames: int
    paintings: Sequence[np.ndarray] = ()


Episode: TypeAlias = Generator[np.ndarray, Moment, Any]
"""An agent in one episode: yields actions, is sent the moments that they led to, and
returns what it makes of them when the episode is over, or earlier to leave it."""


class HostVectorEnv(NamedTuple):
    """Simulators on the host, each in a process of its own.

    They cannot be copied, rewound or traced, so that episodes are handed out whole: as
    many at a time as there are simulators, whichever is free plays the next one.

    Attributes:
      spec: as in `Environment`.
      size: how many simulators; results do not depend on it.
      play: (seeds, begin, painted) -> what the episodes returned, in the seeds' order.
        Episode i begins with a reset to seeds[i] and is played by begin(i, moment), a
        generator. Where a simulator crashes or hangs its episode is begun again, by
        another call of `begin`. `painted` is the size of the paintings, (0, 0) or
        (height, width).
      close: () -> None, ends the processes; `play` would start others.
    """

    spec: Spec
    size: int
    play: Callable[
        [Sequence[int], Callable[[int, Moment], Episode], tuple[int, int]], list[Any]
    ]
    close: Callable[[], None]
