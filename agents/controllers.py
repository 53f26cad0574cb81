"""The small networks that turn the encoder's features into an action."""

from dataclasses import dataclass
from enum import Enum

import haiku as hk
import jax
import jax.numpy as jnp

from iap import (
    CausalState,
    Design,
    FeatureMap,
    Kernel,
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


class Controller(hk.Module):
    """features f32[F], memory -> raw outputs f32[outputs], value, memory.

    A critic's value is f32[]; without a critic it is (). With one, the first action is
    close to raw outputs of 0: the gradient, not the first weights, should choose it.
    """

    def __init__(self, config: ControllerConfig, outputs: int, critic: bool = False):
        super().__init__(name="controller")
        self._config = config
        self._outputs = outputs
        self._critic = critic

    def __call__(self, features: jax.Array, carry):
        """Runs one step of one world."""
        size, hidden = self._config.size, features
        for _ in range(self._config.layers - 1):
            hidden = jnp.tanh(hk.Linear(size, name="hidden")(hidden))
        if self._config.core is Core.lstm:
            hidden, carry = hk.LSTM(size, name="lstm")(hidden, carry)
        elif self._config.core is Core.gru:
            hidden, carry = hk.GRU(size, name="gru")(hidden, carry)
        elif self._config.core is Core.rnn:
            joined = jnp.concatenate([hidden, carry])
            hidden = jnp.tanh(hk.Linear(size, name="rnn")(joined))
            carry = hidden
        elif self._config.core is Core.causal:
            tokens = jnp.split(hk.Linear(3 * size, name="tokens")(hidden), 3)
            carry, read = causal_step(carry, *tokens, features=_kernel(self._config))
            joined = jnp.concatenate([hidden, read])
            hidden = jnp.tanh(hk.Linear(size, name="causal")(joined))
        else:
            hidden = jnp.tanh(hk.Linear(size, name="hidden")(hidden))
        if not self._critic:
            return hk.Linear(self._outputs, name="action")(hidden), (), carry
        small = hk.initializers.TruncatedNormal(0.01 / size**0.5)
        raw = hk.Linear(self._outputs, w_init=small, name="action")(hidden)
        return raw, hk.Linear(1, name="value")(hidden)[0], carry
