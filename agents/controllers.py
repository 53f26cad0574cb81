"""The small networks that turn the encoder's features into an action."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from iap import (
    CausalState,
    Design,
    FeatureMap,
    Kernel,
    causal_attention,
    causal_start,
    causal_step,
    feature_map,
)


class Core(Enum):
    """What stands between the features and the action."""

    mlp = "mlp"
    rnn = "rnn"
    lstm = "lstm"
    gru = "gru"
    causal = "causal"


@dataclass(frozen=True)
class ControllerConfig:
    """A controller with one hidden layer, or several.

    Attributes:
      core: mlp (tanh, no memory), rnn (Elman, tanh), lstm, gru, or causal (linear
        attention to all steps of the episode so far, whose state does not grow).
      size: hidden units of a layer.
      layers: hidden layers; the last is the core, those before it are tanh layers.
    """

    core: Core = Core.rnn
    size: int = 16
    layers: int = 1

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(
                f"controller.size is {self.size}; a controller needs at least 1 hidden "
                "unit (AttentionAgent: 16)"
            )
        if self.layers < 1:
            raise ValueError(
                f"controller.layers is {self.layers}; a controller needs at least 1 "
                "hidden layer"
            )


def start(
    config: ControllerConfig,
) -> CausalState | hk.LSTMState | jax.Array | tuple[()]:
    """The memory at the beginning of an episode, () where there is none.

    It is zeros; of a causal core, the state of attention that has seen no token.
    """
    if config.core is Core.mlp:
        return ()
    if config.core is Core.causal:
        return causal_start(_kernel(config), config.size, config.size)
    zeros = jnp.zeros(config.size)
    if config.core is Core.lstm:
        return hk.LSTMState(hidden=zeros, cell=zeros)
    return zeros


def _kernel(config: ControllerConfig) -> FeatureMap:
    """Of the causal core: arXiv 2006.16236's, which has no constants to be drawn."""
    return feature_map(Kernel.elu, Design(depth=config.size))


CHUNK = 16
"""Steps of a causal core that are held at once where many are judged."""


class Controller(hk.Module):
    """features f32[F], memory -> raw outputs f32[outputs], value, memory.

    A critic's value is f32[]; without a critic it is (). With one, the first action is
    close to raw outputs of 0: the gradient, not the first weights, should choose it.

    With `first`, bool[T], of T steps of one world at once: features f32[T, F] -> f32[T,
    outputs], f32[T], and (). The memory begins anew with each step that is the first
    of an episode.
    """

    def __init__(self, config: ControllerConfig, outputs: int, critic: bool = False):
        super().__init__(name="controller")
        self._config = config
        self._outputs = outputs
        self._critic = critic

    def __call__(self, features: jax.Array, carry, first: jax.Array | None = None):
        """Runs one step of one world, or T steps."""
        core, size, hidden = self._config.core, self._config.size, features
        for _ in range(self._config.layers - 1):
            hidden = jnp.tanh(hk.Linear(size, name="hidden")(hidden))
        if core is Core.mlp:
            hidden = jnp.tanh(hk.Linear(size, name="hidden")(hidden))
        elif core is Core.causal:
            hidden, carry = self._attend(hidden, carry, first)
        elif first is None:
            hidden, carry = self._cell()(hidden, carry)
        else:
            hidden, carry = self._repeat(self._cell(), hidden, carry, first), ()
        if not self._critic:
            return hk.Linear(self._outputs, name="action")(hidden), (), carry
        small = hk.initializers.TruncatedNormal(0.01 / size**0.5)
        raw = hk.Linear(self._outputs, w_init=small, name="action")(hidden)
        return raw, hk.Linear(1, name="value")(hidden)[..., 0], carry

    @hk.transparent
    def _cell(self) -> Callable[[jax.Array, Any], tuple[jax.Array, Any]]:
        size = self._config.size
        if self._config.core is Core.lstm:
            return hk.LSTM(size, name="lstm")
        if self._config.core is Core.gru:
            return hk.GRU(size, name="gru")
        linear = hk.Linear(size, name="rnn")

        def elman(hidden, carry):
            hidden = jnp.tanh(linear(jnp.concatenate([hidden, carry])))
            return hidden, hidden

        return elman

    @hk.transparent
    def _repeat(self, cell: Callable, hidden: jax.Array, carry: Any, first: jax.Array):
        def step(carry, now):
            hidden, anew = now
            carry = jax.tree.map(
                lambda new, old: jnp.where(anew, new, old), start(self._config), carry
            )
            hidden, carry = cell(hidden, carry)
            return carry, hidden

        return hk.scan(step, carry, (hidden, first))[1]

    @hk.transparent
    def _attend(self, hidden: jax.Array, carry: Any, first: jax.Array | None):
        size, kernel = self._config.size, _kernel(self._config)
        tokens = hk.Linear(3 * size, name="tokens")(hidden)
        tokens = jnp.split(tokens, 3, axis=-1)
        if first is None:
            carry, read = causal_step(carry, *tokens, features=kernel)
        else:
            read = causal_attention(
                *tokens, features=kernel, chunk=CHUNK, state=carry, first=first
            )
            carry = ()
        joined = jnp.concatenate([hidden, read], axis=-1)
        return jnp.tanh(hk.Linear(size, name="causal")(joined)), carry
