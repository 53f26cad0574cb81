"""Evolution strategies: a population of policies, each scored by whole episodes.

The algorithms are evosax's; this is the only file that knows evosax. Ours is what
stands between a strategy and a world: common random numbers, devices, chunks, and what
becomes of a return that is not a number.
"""

import contextlib
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from agents import host_rollout
from agents import keys as names
from agents.core import Learner, Params, Policy
from agents.placing import agreed, put, whole
from agents.rollout import EpisodeStats, episode_keys, returns
from envs.core import HostVectorEnv, VectorEnv

MEMORY = 256_000_000
"""Bytes that a strategy may remember: CMA_ES of 5,600 parameters, two matrices of each
with each. To decompose one takes several times that."""


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


class Mapping(Enum):
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
    std: float = 0.1
    learning_rate: float = 0.0
    params: dict[str, float] = field(default_factory=dict)
    patience: int = 10
    mapping: Mapping = Mapping.auto
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


def make(
    config: ESConfig,
    policy: Policy,
    env: VectorEnv | HostVectorEnv,
    levels: int,
    devices: Sequence[Any],
) -> Learner:
    """An evolution strategy over a policy's parameters.

    Args:
      config: its settings.
      policy: what is evolved.
      env: `config.episodes` worlds, those of one member; or simulators on the host,
        any number of them, which play the episodes of all.
      levels: how many levels the world's pool holds.
      devices: they share the population, those of other processes too. Where they do
        not divide it, some of them play a member again, which is not counted.

    Returns:
      A learner whose metrics are return_mean, return_best, return_worst and return_sd
      over the members, decisions and frames of the generation, std (the distribution's
      mean standard deviation, where it has one), and the totals nonfinite and skipped.

    Raises:
      ValueError: settings that the strategy or the world cannot have.
    """
    _check(config, env)
    # The mean starts at zero, as AttentionAgent's does: what tells members apart is
    # then all the strategy's own. Only the policy's shapes are needed.
    shapes = jax.eval_shape(policy.init, jax.random.key(0))
    mean = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    strategy, params = _strategy(config, mean)

    def init(key: jax.Array) -> ESState:
        with _lenient():
            state = strategy.init(key, mean, params)
        zero = jnp.int32(0)
        return ESState(_strong(state), skipped=zero, nonfinite=zero)

    _check_size(config, shapes, jax.eval_shape(init, jax.random.key(0)))
    mesh = Mesh(np.asarray(devices), ("population",))
    split = NamedSharding(mesh, PartitionSpec("population"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    if isinstance(env, HostVectorEnv):
        evaluate = _host_evaluation(config, policy, env)
    else:
        of_shards = _evaluation(config, policy, env, mesh)
        sole = split.is_fully_addressable
        P, D = config.population, len(devices)
        seats = np.arange(-(-P // D) * D) % P

        def evaluate(population, world, episodes, key) -> EpisodeStats:
            seated = jax.tree.map(lambda leaf: leaf[seats], population)
            if not sole:
                episodes, key = put((episodes, key), everywhere)
            stats = whole(of_shards(put(seated, split), world, episodes, key))
            return jax.tree.map(lambda leaf: leaf[:P], stats)

    home = next(d for d in mesh.devices.flat if d.process_index == jax.process_index())

    @jax.jit
    def ask(state, key):
        with _lenient():
            population, state = strategy.ask(key, state, params)
        return population, _strong(state)

    @jax.jit
    def tell(state: ESState, asked, population, stats: EpisodeStats, key):
        member = stats.returns.mean(axis=1)
        finite = jnp.isfinite(member)
        worst = jnp.min(member, where=finite, initial=jnp.inf)
        usable = jnp.where(finite, member, worst)
        with _lenient():
            # evosax minimises: the one place where the sign flips.
            told, _ = strategy.tell(key, population, -usable, asked, params)
        some = finite.any()
        evolved = jax.tree.map(
            lambda new, old: jnp.where(some, new, old), _strong(told), state.strategy
        )
        state = ESState(
            strategy=evolved,
            skipped=state.skipped + jnp.where(some, 0, 1),
            nonfinite=state.nonfinite + jnp.sum(~finite, dtype=jnp.int32),
        )
        metrics = {
            "return_mean": jnp.mean(member, where=finite),
            "return_best": jnp.max(member, where=finite, initial=-jnp.inf),
            "return_worst": worst,
            "return_sd": jnp.std(member, where=finite),
            "decisions": stats.decisions.sum(),
            "frames": stats.frames.sum(),
            "nonfinite": state.nonfinite,
            "skipped": state.skipped,
        }
        if hasattr(evolved, "std"):
            metrics["std"] = jnp.mean(evolved.std)
        return state, metrics

    def update(state: ESState, world, key):
        state = jax.device_put(state, home)  # as later states are: one compilation
        population, asked = ask(state.strategy, names.stream(key, "ask"))
        population = agreed(population)
        episodes = jax.random.randint(
            names.stream(key, "levels"), (config.episodes,), 0, levels, jnp.int32
        )
        episode_key = names.stream(key, "episodes")
        stats = evaluate(population, world, episodes, episode_key)
        # Strategies run on one device: their linear algebra would be repeated on all.
        stats = jax.device_put(stats, home)
        return tell(state, asked, population, stats, names.stream(key, "tell"))

    def acting(state: ESState) -> Params:
        return strategy.get_mean(state.strategy)

    return Learner(
        init=init,
        update=update,
        acting=acting,
        place=lambda world: put(world, everywhere),
    )


def _evaluation(config: ESConfig, policy: Policy, env: VectorEnv, mesh: Mesh):
    """(population [P], world, episodes [E], key) -> EpisodeStats [P, E], sharded."""
    patience = config.patience or None
    side_by_side = config.mapping is Mapping.vmap or (
        config.mapping is Mapping.auto and mesh.devices.flat[0].platform != "cpu"
    )

    def member(params, world, episodes, keys) -> EpisodeStats:
        def act(carry, observation):
            return policy.act(params, carry, observation, None)

        carry = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (env.size, *leaf.shape)), policy.start()
        )
        return returns(env, world, jax.vmap(act), carry, episodes, keys, patience)

    def shard(population, world, episodes, key):
        keys = episode_keys(key, env.size)  # the same episodes for every member

        def score(params):
            return member(params, world, episodes, keys)

        if not side_by_side:
            return jax.lax.map(score, population)
        if config.chunk:
            return jax.lax.map(score, population, batch_size=config.chunk)
        return jax.vmap(score)(population)

    members, all_ = PartitionSpec("population"), PartitionSpec()
    return jax.jit(
        jax.shard_map(
            shard,
            mesh=mesh,
            in_specs=(members, all_, all_, all_),
            out_specs=members,
            check_vma=False,
        )
    )


def _host_evaluation(config: ESConfig, policy: Policy, env: HostVectorEnv):
    """(population [P], seeds, episodes [E], key) -> EpisodeStats [P, E], on the host.

    All that is random in an episode comes from its seed, so that the key has no use.
    """
    act = host_rollout.acting(policy)
    shape = config.population, config.episodes

    def evaluate(population, world, episodes, key) -> EpisodeStats:
        del key
        members = jax.device_get(population)
        start = policy.start()
        seeds = np.tile(np.asarray(world)[np.asarray(episodes)], config.population)

        def params(index: int) -> Params:
            member = index // config.episodes
            return jax.device_put(jax.tree.map(lambda leaf: leaf[member], members))

        stats = host_rollout.returns(
            env, act, start, params, seeds.tolist(), config.patience or None
        )
        return jax.tree.map(lambda leaf: leaf.reshape(shape), stats)

    return evaluate


def _check(config: ESConfig, env: VectorEnv | HostVectorEnv) -> None:
    for name, least in (("population", 2), ("episodes", 1), ("patience", 0)):
        value = getattr(config, name)
        if value < least:
            raise ValueError(f"agent.{name} is {value}; it must be at least {least}")
    if not 0 < config.std < math.inf:
        raise ValueError(
            f"agent.std is {config.std}; it must be a number greater than 0"
        )
    if not 0 <= config.learning_rate < math.inf:
        raise ValueError(
            f"agent.learning_rate is {config.learning_rate}; it must be greater than "
            "0, or 0 for evosax's own"
        )
    if config.chunk < 0:
        raise ValueError(f"agent.chunk is {config.chunk}; 0 means no limit")
    if isinstance(env, VectorEnv) and env.size != config.episodes:
        raise ValueError(
            f"a member's {config.episodes} episodes need as many worlds, not {env.size}"
        )


def _check_size(config: ESConfig, solution: Params, state: ESState) -> None:
    """A matrix of all parameters with all is soon beyond any memory."""
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    if size > MEMORY:
        count = sum(leaf.size for leaf in jax.tree.leaves(solution))
        raise ValueError(
            f"agent.strategy={config.strategy.name} would remember {size / 1e9:.1f} GB "
            f"of the policy's {count:,} parameters, and need several times that in a "
            f"generation; at most {MEMORY / 1e9:.1f} GB are allowed: take "
            "agent.strategy=Sep_CMA_ES, whose memory is their number, or a smaller "
            "policy"
        )


def _strategy(config: ESConfig, solution: Params) -> tuple[Any, Any]:
    """Evosax's algorithm and its hyper-parameters, checked by name."""
    import optax
    from evosax import algorithms

    algorithm = getattr(algorithms, config.strategy.name)
    accepts = inspect.signature(algorithm.__init__).parameters
    name = f"agent.strategy={config.strategy.name}"
    options: dict[str, Any] = {}
    if config.learning_rate:
        if "optimizer" not in accepts:
            raise ValueError(
                f"agent.learning_rate is set, but {name} has no optimiser; leave it 0"
            )
        options["optimizer"] = optax.adam(config.learning_rate)
    if "std_schedule" in accepts:
        options["std_schedule"] = optax.constant_schedule(config.std)
    try:
        with _lenient():
            strategy = algorithm(config.population, solution, **options)
            settings = dict(config.params)
            if "elite_ratio" in settings:
                strategy.elite_ratio = _elite_ratio(
                    settings.pop("elite_ratio"), strategy.elite_ratio, name
                )
            params = strategy.default_params
    except AssertionError as error:
        raise ValueError(
            f"agent.population={config.population} does not suit {name}: {error}"
        ) from error
    numbers = [f.name for f in fields(params) if np.ndim(getattr(params, f.name)) == 0]
    if unknown := sorted(set(settings) - set(numbers)):
        raise ValueError(
            f"agent.params.{unknown[0]} is no parameter of {name}; it has "
            f"{', '.join(sorted([*numbers, 'elite_ratio']))}"
        )
    if "std_init" in numbers:
        settings.setdefault("std_init", config.std)
    typed = {
        key: jnp.asarray(value, jnp.result_type(getattr(params, key)))
        for key, value in settings.items()
    }
    return strategy, params.replace(**typed)


def _elite_ratio(value: float, default: float, name: str) -> float:
    # A strategy that does not select leaves evosax's 1.
    if default == 1.0:
        raise ValueError(
            f"agent.params.elite_ratio is set, but {name} learns from all members; "
            "leave it out"
        )
    if not 0 < value <= 1:
        raise ValueError(
            f"agent.params.elite_ratio is {value}; it must be greater than 0 and at "
            "most 1"
        )
    return value


def _lenient():
    """Evosax relies on rank and dtype promotion that this project refuses elsewhere."""
    stack = contextlib.ExitStack()
    stack.enter_context(jax.numpy_rank_promotion("allow"))
    stack.enter_context(jax.numpy_dtype_promotion("standard"))
    return stack


def _strong(tree: Any) -> Any:
    """Numbers as arrays without weak types: generation 2 must not retrace."""
    return jax.tree.map(
        lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), tree
    )
