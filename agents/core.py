"""What an agent is: a policy acts, a learner improves its parameters."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax

Params: TypeAlias = Any
Carry: TypeAlias = Any
LearnerState: TypeAlias = Any


class Decision(NamedTuple):
    """One decision of a policy.

    Attributes:
      action: f32[A] within the bounds of the world's action, or i32[] for a choice.
      attention: what the encoder looked at, `iap.Attention`; in a trajectory, what its
        maker keeps of it.
      choice: i32[K], patches in the order in which they were drawn; () where none were.
      log_prob: f32[], of action and choice together; () where the mode was played.
      value: f32[], what the policy expects of the future, in the unit of its learner;
        () where the mode was played.
    """

    action: jax.Array
    attention: Any
    choice: Any = ()
    log_prob: Any = ()
    value: Any = ()


class Policy(NamedTuple):
    """A parametrised behaviour, written for one world; the caller vmaps.

    Attributes:
      init: key -> params, a pytree of f32 arrays.
      start: () -> carry, the memory at the beginning of an episode.
      act: (params, carry, observation, key or None) -> (carry, Decision). Without a
        key it plays the mode.
      see: (params, observation, choice) -> what `evaluate` needs of an observation. It
        knows no memory, so that many steps of an episode can be seen at once. None
        where a policy has no distribution.
      evaluate: (params, carry, seen [T], first bool[T], action [T]) -> (log_prob,
        entropy, value), f32[T] each: what `act` would have said of T decisions of one
        world, and the entropies of the actions' distributions. `carry` is the memory
        before them; it begins anew with each that is the first of an episode. Without
        a memory they may be any T decisions. None where a policy has no distribution.
    """

    init: Callable[[jax.Array], Params]
    start: Callable[[], Carry]
    act: Callable[[Params, Carry, jax.Array, jax.Array | None], tuple[Carry, Decision]]
    see: Callable[[Params, Any, Any], Any] | None = None
    evaluate: (
        Callable[
            [Params, Carry, Any, jax.Array, jax.Array],
            tuple[jax.Array, jax.Array, jax.Array],
        ]
        | None
    ) = None


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
