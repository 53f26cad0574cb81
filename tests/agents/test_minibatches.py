import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import keys as names
from agents import minibatches, rollout
from agents.controllers import ControllerConfig, Core
from agents.minibatches import Batch
from agents.policy import make_actor_critic
from envs.core import Box
from envs.vector import vectorise
from iap import EncoderConfig
from tests.probes import dot_world

B, T, PARTS = 8, 12, 4
ENV = dot_world(max_steps=T + 5, noise=0.5)


def actor(core, **settings):
    encoder = EncoderConfig(window=3, stride=3, top_k=3, features=8, **settings)
    return make_actor_critic(ENV.spec, encoder, ControllerConfig(core, 6))


def experience(policy, params):
    """Two unrolls, the second begun in the middle of episodes; its start and itself."""
    worlds = vectorise(ENV, B)
    keys = rollout.episode_keys(jax.random.key(0), B)
    states = worlds.reset(ENV.world, jnp.zeros(B, jnp.int32), keys)
    carry = jax.tree.map(lambda x: jnp.zeros((B, *x.shape)), policy.start())
    none = jnp.zeros(B, jnp.int32)
    games = rollout.Games(states, carry, jnp.ones(B, bool), none)

    @jax.jit
    def play(games, key):
        def act(carry, observation, key):
            return policy.act(params, carry, observation, key)

        return rollout.unroll(
            *(worlds, ENV.world, jax.vmap(act), policy.start(), games),
            *(rollout.episode_keys(key, B), 6, T),
        )

    middle, _ = play(games, jax.random.key(1))
    assert not middle.done.all()
    return middle.carry, play(middle, jax.random.key(2))[1]


def as_batch(trajectory):
    decision, reward = trajectory.decision, trajectory.reward
    return Batch(
        observation=trajectory.observation,
        first=trajectory.first,
        action=decision.action,
        choice=decision.choice,
        log_prob=decision.log_prob,
        value=decision.value,
        advantage=reward,
        target=jnp.arange(T * B, dtype=jnp.float32).reshape(T, B),
    )


@pytest.mark.parametrize(
    ("core", "temperature"),
    [
        (Core.mlp, 0.0),
        (Core.lstm, 0.7),
        *(
            pytest.param(core, 0.7, marks=pytest.mark.slow)
            for core in Core
            if core is not Core.lstm
        ),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_each_decision_is_judged_as_when_it_was_made(core, temperature):
    """Memories that begin anew in mid-unroll, and draws of patches, included."""
    policy = actor(core, temperature=temperature, content=True, weighted=True)
    params = policy.init(jax.random.key(3))
    carry, trajectory = experience(policy, params)
    assert trajectory.first[1:].any(), "no episode begins within the unroll"
    batch = as_batch(trajectory)
    split = minibatches.split(policy, PARTS)
    order = split.order(jax.random.key(0), jnp.arange(B), T)
    assert len(order) == PARTS
    seen = []
    for row in order:
        part, memory = split.take(batch, carry, row)
        log_prob, entropy, value = jax.jit(split.judge)(params, part, memory)
        # The same numbers, fused otherwise.
        np.testing.assert_allclose(log_prob, part.log_prob, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(value, part.value, rtol=1e-4, atol=1e-5)
        assert entropy.shape == value.shape
        seen.append(np.ravel(part.target))
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(T * B))


@pytest.mark.parametrize("core", [Core.mlp, Core.rnn], ids=lambda core: core.name)
def test_a_minibatch_is_the_same_on_any_number_of_devices(core):
    split = minibatches.split(actor(core), PARTS)
    key = names.stream(jax.random.key(0), "shuffle")
    target = np.arange(T * B, dtype=np.float32).reshape(T, B)
    batch = Batch(**dict.fromkeys(Batch._fields, jnp.asarray(target)))

    def held(part):
        return set(np.ravel(part.target))

    together = split.order(key, jnp.arange(B), T)
    halves = []
    for half in (slice(0, B // 2), slice(B // 2, B)):
        order = split.order(key, jnp.arange(B)[half], T)
        mine = jax.tree.map(lambda x, half=half: x[:, half], batch)
        halves.append([held(split.take(mine, (), row)[0]) for row in order])
    for number, row in enumerate(together):
        whole = held(split.take(batch, (), row)[0])
        assert whole == halves[0][number] | halves[1][number]
        assert len(whole) == T * B // PARTS


def test_two_epochs_split_otherwise():
    split = minibatches.split(actor(Core.mlp), PARTS)
    key = jax.random.key(0)
    first, second = (
        split.order(names.at(key, epoch), jnp.arange(B), T) for epoch in (0, 1)
    )
    assert (first != second).any()


@pytest.mark.parametrize("core", [Core.mlp, Core.gru], ids=lambda core: core.name)
def test_blocks_give_the_gradient_of_the_whole_minibatch(core, monkeypatch):
    monkeypatch.setattr(minibatches, "BLOCK", 10)  # of 24 samples: 3 blocks of 8
    policy = actor(core, content=True, weighted=True)
    params = policy.init(jax.random.key(3))
    carry, trajectory = experience(policy, params)
    batch = as_batch(trajectory)
    whole, blocks = (minibatches.split(policy, PARTS, cut) for cut in (False, True))
    row = whole.order(jax.random.key(0), jnp.arange(B), T)[0]
    part, memory = whole.take(batch, carry, row)
    sizes = []

    def loss(split):
        def of(params, batch, carry):
            log_prob, _, value = split.judge(params, batch, carry)
            sizes.append(value.size)
            error = jnp.square(value - 0.1 * batch.target) - log_prob * batch.advantage
            return jnp.mean(error), {"value": jnp.mean(value)}

        return of

    expected, found = (
        jax.jit(lambda *given, of=split: of.gradient(loss(of), *given))(
            params, part, memory
        )
        for split in (whole, blocks)
    )
    assert min(sizes) == (8 if core is Core.mlp else T * B // PARTS)
    largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(expected))
    jax.tree.map(
        # Sums of 24 samples in float32, in another order.
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * largest),
        expected,
        found,
    )


@pytest.mark.parametrize(
    ("samples", "block"), [(96, 32), (35, 7), (34, 17), (62, 31), (127, 127), (3, 3)]
)
def test_no_block_is_tiny(samples, block):
    """A minibatch that only tiny blocks divide is not cut."""
    values = jnp.arange(samples, dtype=jnp.float32)[:, None]
    batch = Batch(**dict.fromkeys(Batch._fields, values))
    sizes = []

    def loss(scale, batch, carry):
        sizes.append(batch.value.size)
        return scale * jnp.mean(batch.value), ()

    split = minibatches.split(actor(Core.mlp), PARTS, in_blocks=True)
    gradient, _ = split.gradient(loss, jnp.float32(1), batch, ())
    assert {*sizes} == {block}
    # A mean of means in float32.
    np.testing.assert_allclose(gradient, (samples - 1) / 2, rtol=1e-6)


@pytest.mark.parametrize("core", [Core.mlp, Core.gru], ids=lambda core: core.name)
def test_an_epoch_copies_each_minibatch_once(core):
    """Twice as much experience takes one minibatch's growth more memory, not two."""
    picture = Box((48, 48, 3), (0,), (255,), "uint8")
    encoder = EncoderConfig(window=8, stride=8, content=True, weighted=True)
    spec = ENV.spec._replace(observation=picture)
    policy = make_actor_critic(spec, encoder, ControllerConfig(core, 6))
    params = policy.init(jax.random.key(3))
    split = minibatches.split(policy, PARTS, in_blocks=True)

    def loss(params, batch, carry):
        log_prob, entropy, value = split.judge(params, batch, carry)
        return jnp.mean(log_prob + entropy + value), ()

    def epoch(params, batch, carry, key):
        def step(params, row):
            part = split.take(batch, carry, row)
            gradient, _ = split.gradient(loss, params, *part)
            return jax.tree.map(jnp.subtract, params, gradient), None

        order = split.order(key, jnp.arange(B), len(batch.value))
        return jax.lax.scan(step, params, order)[0]

    def temporary(steps):
        none = jax.ShapeDtypeStruct((steps, B), jnp.float32)
        shapes = {
            "observation": (*picture.shape, jnp.uint8),
            "first": (jnp.bool_,),
            "action": (*ENV.spec.action.shape, jnp.float32),
        }
        held = {
            name: jax.ShapeDtypeStruct((steps, B, *shape), dtype)
            for name, (*shape, dtype) in shapes.items()
        }
        fields = dict.fromkeys(Batch._fields, none) | held | {"choice": ()}
        start = jax.tree.map(lambda x: jnp.zeros((B, *x.shape)), policy.start())
        lowered = jax.jit(epoch).lower(
            params, Batch(**fields), start, jax.random.key(0)
        )
        return lowered.compile().memory_analysis().temp_size_in_bytes

    few, many = 32 * 64, 32 * 128
    pictures = (many - few) * B * math.prod(picture.shape) // PARTS
    grown = temporary(many) - temporary(few)
    assert pictures < grown < 1.9 * pictures
