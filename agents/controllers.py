"""The small networks that turn the encoder's features into an action."""

from dataclasses import dataclass
from enum import Enum

import haiku as hk
import jax
import jax.numpy as jnp


class Core(Enum):
    """What stands between the features and the action."""

    mlp = "mlp"
    rnn = "rnn"
    lstm = "lstm"


@dataclass(frozen=True)
class ControllerConfig:
    """A controller with one hidden layer.

    Attributes:
      core: mlp (tanh, no memory), rnn (Elman, tanh) or lstm.
      size: hidden units.
    """

    core: Core = Core.rnn
    size: int = 16

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(
                f"controller.size is {self.size}; a controller needs at least 1 hidden "
                "unit (AttentionAgent: 16)"
            )


def start(config: ControllerConfig) -> hk.LSTMState | jax.Array | tuple[()]:
    """The memory at the beginning of an episode: zeros, or () where there is none."""
    zeros = jnp.zeros(config.size)
    if config.core is Core.lstm:
        return hk.LSTMState(hidden=zeros, cell=zeros)
    return zeros if config.core is Core.rnn else ()


class Controller(hk.Module):
    """features f32[F], memory -> raw outputs f32[outputs], memory."""

    def __init__(self, config: ControllerConfig, outputs: int):
        super().__init__(name="controller")
        self._config = config
        self._outputs = outputs

    def __call__(self, features: jax.Array, carry):
        """Runs one step of one world."""
        if self._config.core is Core.lstm:
            hidden, carry = hk.LSTM(self._config.size, name="lstm")(features, carry)
        elif self._config.core is Core.rnn:
            joined = jnp.concatenate([features, carry])
            hidden = jnp.tanh(hk.Linear(self._config.size, name="rnn")(joined))
            carry = hidden
        else:
            hidden = jnp.tanh(hk.Linear(self._config.size, name="hidden")(features))
        return hk.Linear(self._outputs, name="action")(hidden), carry
