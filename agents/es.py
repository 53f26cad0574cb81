"""Evolution strategies: a population of policies, each scored by whole episodes.

The algorithms are evosax's; this is the only file that knows evosax. Ours is what
stands between a strategy and a world: common random numbers, devices, chunks, and what
becomes of a return that is not a number.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from agents import keys as names
from agents.core import Learner, Params, Policy
from agents.rollout import EpisodeStats, episode_keys, returns
from envs.core import VectorEnv


class Strategy(Enum):
    """evosax's strategies that keep a distribution and are scored by whole episodes.

    Not here: strategies without a mean to evaluate (the genetic ones), those scored by
    truncated pieces of episodes (PersistentES, NoiseReuseES), and those that need more
    than a population size and a solution (RandomSearch, SV_CMA_ES, SV_Open_ES).
    """

    ARS = "ARS"
    ASEBO = "ASEBO"
    CMAAnchoredLES = "CMAAnchoredLES"
    CMA_ES = "CMA_ES"
    CR_FM_NES = "CR_FM_NES"
    DiscoveredES = "DiscoveredES"
    ESMC = "ESMC"
    EvoTF_ES = "EvoTF_ES"
    GradientlessDescent = "GradientlessDescent"
    GuidedES = "GuidedES"
    HillClimbing = "HillClimbing"
    LM_MA_ES = "LM_MA_ES"
    LearnedES = "LearnedES"
    MA_ES = "MA_ES"
    Open_ES = "Open_ES"
    PGPE = "PGPE"
    Rm_ES = "Rm_ES"
    SNES = "SNES"
    Sep_CMA_ES = "Sep_CMA_ES"
    SimpleES = "SimpleES"
    SimulatedAnnealing = "SimulatedAnnealing"
    iAMaLGaM_Full = "iAMaLGaM_Full"
    iAMaLGaM_Univariate = "iAMaLGaM_Univariate"
    xNES = "xNES"


class Mapping_(Enum):  # noqa: N801
    """How members of a population share a device."""

    auto = "auto"
    map = "map"
    vmap = "vmap"


@dataclass(frozen=True)
class ESConfig:
    """An evolution strategy.

    Attributes:
      name: "es".
      strategy: one of evosax's algorithms.
      population: members of a generation.
      episodes: episodes of each member; all members play the same ones.
      std: the strategy's initial standard deviation.
      learning_rate: of the strategy's optimiser, where it has one; 0 keeps evosax's.
      params: the strategy's own hyper-parameters by name (`agent.params.c_std=0.1`).
      patience: in training, an episode ends after this many decisions in a row without
        reward; 0 plays to the end.
      mapping: map runs a device's members one after another, vmap side by side; auto
        takes map on a CPU (a batched product with one matrix per member is slow there)
        and vmap elsewhere.
      chunk: at most this many members side by side under vmap; 0 takes all.
    """

    name: str = "es"
    strategy: Strategy = Strategy.CMA_ES
    population: int = 64
    episodes: int = 4
    std: float = 0.3
    learning_rate: float = 0.0
    params: dict[str, float] = field(default_factory=dict)
    patience: int = 10
    mapping: Mapping_ = Mapping_.auto
    chunk: int = 0


class ESState(NamedTuple):
    """All that evolution remembers between generations.

    Attributes:
      strategy: evosax's state, a pytree.
      skipped: i32[], generations without one finite return, so far.
      nonfinite: i32[], returns that were no finite number, so far.
    """

    strategy: Any
    skipped: jax.Array
    nonfinite: jax.Array
