"""What an agent is: a policy acts, a learner improves its parameters."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax

from iap import Attention

Params: TypeAlias = Any
Carry: TypeAlias = Any
LearnerState: TypeAlias = Any


class Decision(NamedTuple):
    """One decision of a policy.

    Attributes:
      action: f32[A] within the bounds of the world's action, or i32[] for a choice.
      attention: what the encoder looked at.
    """

    action: jax.Array
    attention: Attention


class Policy(NamedTuple):
    """A parametrised behaviour, written for one world; the caller vmaps.

    Attributes:
      init: key -> params, a pytree of f32 arrays.
      start: () -> carry, the memory at the beginning of an episode.
      act: (params, carry, observation, key or None) -> (carry, Decision). Without a
        key it plays the mode.
    """

    init: Callable[[jax.Array], Params]
    start: Callable[[], Carry]
    act: Callable[[Params, Carry, jax.Array, jax.Array | None], tuple[Carry, Decision]]


class Learner(NamedTuple):
    """An algorithm that turns experience into better parameters.

    Attributes:
      init: key -> state, a pytree of arrays: all that a checkpoint must hold.
      update: (state, world, key) -> (state, metrics). One iteration, jitted; `key` is
        the iteration's own, `world` has been placed. Metrics are scalars; `decisions`
        and `frames` count this iteration's experience.
      acting: state -> params, the policy to evaluate and to ship.
      place: world -> world, its constant data copied to the learner's devices, once.
    """

    init: Callable[[jax.Array], LearnerState]
    update: Callable[
        [LearnerState, Any, jax.Array], tuple[LearnerState, Mapping[str, jax.Array]]
    ]
    acting: Callable[[LearnerState], Params]
    place: Callable[[Any], Any]
