"""Game frames a second: ours, Gymnasium's and EnvPool's, on the same cores.

    python -m experiments.studies.throughput
    python -m experiments.studies.throughput --quick

All play CarRacing with the same kind of random actions, in three modes: physics alone;
with a picture drawn at every step and all of its bytes summed up (in a byte), so that
none can be left out; and with the default policy, which chooses the actions from the
picture. Ours begins another track wherever an episode ends, on one XLA device for each
core; all worlds in lockstep, as the vector environment does, or one block of them
after another, much as evolution plays its members. EnvPool (`pip install
envpool`), which always draws, is left out where it is not installed.

Every contender is prepared first, which is when it compiles. Then all take turns, as
often as `--repeats` says: what else the machine does hits all alike. Also measures how
long a pool of tracks takes to make and to load, and its memory. Prints tables and
ratios, writes throughput.csv. Run it on an idle machine.
"""

import argparse
import csv
import functools
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from agents.controllers import ControllerConfig
from agents.core import Policy
from agents.policy import make_policy
from envs import transforms
from envs.car_racing.env import make
from envs.core import Environment
from envs.vector import vectorise
from experiments.folder import versions
from experiments.studies.peers import (
    DRAWN,
    FIRST,
    Contender,
    Sample,
    Setting,
    cores,
    envpool,
    gymnasium_on_all_cores,
    gymnasium_turn,
    random_actions,
    timed,
)
from iap import EncoderConfig

ROOT = Path(__file__).parents[2]
MODES = ("physics", "drawing", "policy")
PEERS = 256
"""Worlds at which ours is held against the others."""
BLOCK = 8
"""Worlds of a block on each device."""
IN_BLOCKS = Setting(
    "ours", "drawing", PEERS, detail=f"in blocks of {BLOCK} a device", block=BLOCK
)
PAUSE = 0.5
"""Seconds between turns, in which EnvPool's threads end what they have begun."""


Results: TypeAlias = Sequence[tuple[Contender, Sequence[Sample]]]


# --- ours ---------------------------------------------------------------------------


class Progress(NamedTuple):
    """Of B worlds between two steps.

    Attributes:
      states: of the worlds.
      memory: of the policy.
      episode: i32[B], which of the pool's tracks each plays.
      total: u8[B], sum over the pictures seen, modulo 256.
      reward: f32[B], sum of the rewards.
    """

    states: Any
    memory: Any
    episode: jax.Array
    total: jax.Array
    reward: jax.Array


def _steps(env: Environment, size: int, tracks: int, mode: str, policy: Policy):
    """(world, params, keys, Progress, actions [T, size, 3]) -> Progress."""
    batch = vectorise(env, size)
    act = jax.vmap(policy.act, (None, 0, 0, None))

    def anew(done: jax.Array, memory: jax.Array, start: jax.Array) -> jax.Array:
        return jnp.where(done.reshape(-1, *(1,) * start.ndim), start[None], memory)

    def steps(world, params, keys, progress: Progress, actions) -> Progress:
        def step(p: Progress, action: Any):
            memory, total = p.memory, p.total
            if mode != "physics":
                pictures = batch.observe(world, p.states)
                total += pictures.reshape(size, -1).sum(axis=1, dtype=jnp.uint8)
                if mode == "policy":
                    memory, decision = act(params, memory, pictures, None)
                    action = decision.action
            states, outcome = batch.step(world, p.states, action, keys)
            done = outcome.terminated | outcome.truncated
            episode = jnp.where(done, (p.episode + 1) % tracks, p.episode)
            states = batch.restart(world, states, done, episode, keys)
            start = policy.start()
            memory = jax.tree.map(functools.partial(anew, done), memory, start)
            reward = p.reward + outcome.reward
            return Progress(states, memory, episode, total, reward), None

        return jax.lax.scan(step, progress, actions)[0]

    return steps


def _blocked(steps: Callable[..., Progress], blocks: int) -> Callable[..., Progress]:
    """Plays all steps in the first of `blocks` blocks of worlds, then in the next."""

    def apart(x: jax.Array) -> jax.Array:
        return x.reshape(blocks, -1, *x.shape[1:])

    def together(x: jax.Array) -> jax.Array:
        return x.reshape(-1, *x.shape[2:])

    def played(world, params, keys, progress: Progress, actions) -> Progress:
        def block(part):
            keys, progress, actions = part
            return steps(world, params, keys, progress, actions.swapaxes(0, 1))

        parts = keys, progress, actions.swapaxes(0, 1)
        done = jax.lax.map(block, jax.tree.map(apart, parts))
        return jax.tree.map(together, done)

    return played


def ours(env: Environment, setting: Setting, tracks: int) -> Contender:
    """Our worlds, split over as many of the devices as divide their number.

    Args:
      env: the world, with its pool of tracks.
      setting: how it is played.
      tracks: in the pool.
    """
    B = setting.worlds
    env = transforms.action_repeat(env, setting.repeat)
    policy = make_policy(env.spec, EncoderConfig(), ControllerConfig())
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if B % n == 0)
    mesh = Mesh(np.asarray(devices[:count]), ("worlds",))
    split, all_ = PartitionSpec("worlds"), PartitionSpec()
    across = PartitionSpec(None, "worlds")
    side_by_side = min(B // count, setting.block or B)
    blocks, left = divmod(B // count, side_by_side)
    if left:
        raise ValueError(f"blocks of {side_by_side} do not divide {B // count} worlds")
    steps = _steps(env, side_by_side, tracks, setting.mode, policy)
    if blocks > 1:
        steps = _blocked(steps, blocks)
    program = jax.jit(
        jax.shard_map(
            steps,
            mesh=mesh,
            in_specs=(all_, all_, split, split, across),
            out_specs=split,
            check_vma=False,
        ),
        donate_argnums=3,
    )
    key = jax.random.key(0)
    world, params = jax.device_put(
        (env.world, policy.init(key)), NamedSharding(mesh, all_)
    )
    keys = jax.random.split(key, B)
    episode = jnp.arange(B, dtype=jnp.int32) % tracks
    memory = jax.tree.map(lambda m: jnp.zeros((B, *m.shape)) + m, policy.start())
    states = jax.jit(vectorise(env, B).reset)(env.world, episode, keys)
    nothing = jnp.zeros(B, jnp.uint8), jnp.zeros(B)
    start = Progress(states, memory, episode, *nothing)
    keys, progress = jax.device_put((keys, start), NamedSharding(mesh, split))
    # Calls of some tenths of a second: long beside their own cost.
    T = max(4, min(DRAWN, 8192 // B))
    actions = jax.device_put(random_actions(T, B), NamedSharding(mesh, across))
    began = time.perf_counter()
    compiled = program.lower(world, params, keys, progress, actions).compile()
    took = time.perf_counter() - began

    def turn() -> int:
        nonlocal progress
        progress = compiled(world, params, keys, progress, actions)
        np.asarray(progress.total)
        return T * B * setting.repeat

    return Contender(setting, took, timed(turn))


# --- the pool of tracks -------------------------------------------------------------

_POOL = """
import sys, time, jax
from envs.car_racing.env import make
jax.devices()
began = time.perf_counter()
jax.block_until_ready(make(range(100000, 100000 + int(sys.argv[1]))).world)
print(time.perf_counter() - began)
"""


def pool_seconds(tracks: int, repeats: int) -> tuple[float, list[float]]:
    """Seconds until a pool is ready in a new process: made anew, and from the disk."""

    def once() -> float:
        command = [sys.executable, "-c", _POOL, str(tracks)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True
        )
        return float(done.stdout)

    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "IAP_CACHE": cache}
        return once(), [once() for _ in range(repeats)]


# --- the study ----------------------------------------------------------------------


def contenders(
    env: Environment, levels: Sequence[int], sizes: Sequence[int]
) -> list[Contender]:
    """All that take turns, prepared.

    Args:
      env: our world.
      levels: of its pool.
      sizes: numbers of our worlds.
    """
    tracks = len(levels)
    policy = make_policy(env.spec, EncoderConfig(), ControllerConfig())
    found = []

    def add(make_one: Callable[..., Contender], *arguments: Any) -> None:
        print(".", end="", file=sys.stderr, flush=True)
        found.append(make_one(*arguments))

    for B in sizes:
        for mode in MODES:
            add(ours, env, Setting("ours", mode, B), tracks)
    for mode in MODES:
        add(ours, env, IN_BLOCKS._replace(mode=mode), tracks)
    held = IN_BLOCKS._replace(repeat=4)
    add(ours, env, held, tracks)
    gray = make(levels, color="gray")._replace(world=env.world)
    add(ours, gray, held._replace(picture="96x96 gray", repeat=1), tracks)
    small = make(levels, size=48)
    add(ours, small, held._replace(picture="48x48 rgb", repeat=1), tracks)
    for mode in MODES:
        turn = gymnasium_turn(mode, policy if mode == "policy" else None)
        add(Contender, Setting("gymnasium", mode, 1), 0.0, timed(turn))
    everywhere = Setting("gymnasium", "drawing", cores(), detail="a process per core")
    add(gymnasium_on_all_cores, everywhere)
    try:
        for B, batch in ((cores(), cores()), (64, 64), (64, 16), (PEERS, PEERS)):
            detail = f"{cores()} threads, batch {batch}"
            add(envpool, Setting("envpool", "drawing", B, detail=detail), batch)
        setting = Setting(
            "envpool", "policy", 64, detail=f"{cores()} threads, batch 64"
        )
        add(envpool, setting, 64, policy)
    except ImportError:
        print("\nEnvPool is not installed; pip install envpool", file=sys.stderr)
    print(file=sys.stderr)
    return found


def speeds(samples: Sequence[Sample]) -> np.ndarray:
    """f64[repeats], game frames a second of the clock, sorted."""
    return np.sort([sample.frames / sample.wall for sample in samples])


def table(results: Results) -> str:
    """The results as Markdown."""
    lines = [
        "| who | mode | picture | repeat | worlds | frames/s: median | min | max "
        "| CPU µs per frame | compile s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for contender, samples in results:
        s, speed = contender.setting, speeds(samples)
        who = f"{s.who}, {s.detail}" if s.detail else s.who
        cpu = np.median([1e6 * sample.cpu / sample.frames for sample in samples])
        lines.append(
            f"| {who} | {s.mode} | {s.picture} | {s.repeat} | {s.worlds} "
            f"| {np.median(speed):,.0f} | {speed[0]:,.0f} | {speed[-1]:,.0f} "
            f"| {cpu:,.1f} | {contender.compiled:.1f} |"
        )
    return "\n".join(lines)


def ratio(fast: Sequence[Sample], slow: Sequence[Sample]) -> str:
    """How many times as fast, with the extremes of what was measured."""
    a, b = speeds(fast), speeds(slow)
    return (
        f"{np.median(a) / np.median(b):.1f} ({a[0] / b[-1]:.1f} to {a[-1] / b[0]:.1f})"
    )


def ratios(results: Results) -> str:
    """The comparisons that matter, a line each."""
    by_setting = {contender.setting: samples for contender, samples in results}

    def best(who: str, mode: str, **others: Any) -> Sequence[Sample]:
        wanted = {"who": who, "mode": mode, **others}
        return max(
            (
                samples
                for setting, samples in by_setting.items()
                if wanted.items() <= setting._asdict().items()
            ),
            key=lambda samples: float(np.median(speeds(samples))),
            default=[],
        )

    drawing = by_setting[IN_BLOCKS]
    lockstep = by_setting[IN_BLOCKS._replace(block=0, detail="")]
    policy = by_setting[IN_BLOCKS._replace(mode="policy")]
    held = by_setting[IN_BLOCKS._replace(repeat=4)]
    one = {"worlds": 1}
    pairs = [
        ("ours / EnvPool at its best, drawing", drawing, best("envpool", "drawing")),
        (
            "ours in lockstep / EnvPool at its best, drawing",
            lockstep,
            best("envpool", "drawing"),
        ),
        ("ours / Gymnasium, drawing", drawing, best("gymnasium", "drawing", **one)),
        (
            "ours / Gymnasium on every core, drawing",
            drawing,
            best("gymnasium", "drawing", worlds=cores()),
        ),
        ("ours / EnvPool, policy", policy, best("envpool", "policy")),
        ("ours / Gymnasium, policy", policy, best("gymnasium", "policy")),
        ("action repeat 4 / 1, drawing", held, drawing),
        (
            "gray / rgb, drawing",
            best("ours", "drawing", picture="96x96 gray"),
            drawing,
        ),
        (
            "48x48 / 96x96, drawing",
            best("ours", "drawing", picture="48x48 rgb"),
            drawing,
        ),
    ]
    lines = [f"| ours: {PEERS} worlds | ratio (extremes) |", "|---|---|"]
    lines += [f"| {name} | {ratio(a, b)} |" for name, a, b in pairs if b]
    return "\n".join(lines)


def machine() -> str:
    """What it ran on."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    wanted = ("python", "jax", "jaxlib", "numpy", "gymnasium", "envpool")
    found = {name: v for name, v in versions().items() if name in wanted}
    return f"{cores()} cores of {model}; " + ", ".join(map(" ".join, found.items()))


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables and writes throughput.csv."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    sizes = [4**k for k in range(7)]
    parser.add_argument("--worlds", type=int, nargs="+", default=sizes, help="ours")
    parser.add_argument("--tracks", type=int, default=256, help="in our pool")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each")
    parser.add_argument("--quick", action="store_true", help="a short look")
    parser.add_argument("--out", type=Path, default=Path("throughput.csv"))
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.worlds, arguments.tracks, arguments.seconds = [1], 16, 0.5
    jax.config.update("jax_num_cpu_devices", cores())
    print(f"{time.strftime('%Y-%m-%d')}, {machine()}, {len(jax.devices())} devices\n")
    cold, warm = pool_seconds(arguments.tracks, arguments.repeats)
    levels = range(FIRST, FIRST + arguments.tracks)
    env = make(levels)
    size = sum(array.nbytes for array in jax.tree.leaves(env.world))
    print(
        f"A pool of {len(levels)} tracks is ready in {cold:.1f} s, from the disk in "
        f"{min(warm):.2f} to {max(warm):.2f} s; 64 tracks take "
        f"{64 * size / len(levels) / 1e6:.0f} MB.\n"
    )
    field = contenders(env, levels, sorted({*arguments.worlds, PEERS}))
    turns = []
    for _ in range(arguments.repeats):
        turns.append([])
        for contender in field:
            time.sleep(PAUSE)
            turns[-1].append(contender.play(arguments.seconds))
    results = list(zip(field, map(list, zip(*turns, strict=True)), strict=True))
    print("\n" + table(results) + "\n\n" + ratios(results))
    with open(arguments.out, "w", newline="") as file:
        rows = [
            (*contender.setting, contender.compiled, *sample)
            for contender, samples in results
            for sample in samples
        ]
        header = (*Setting._fields, "compiled", *Sample._fields)
        csv.writer(file).writerows([header, *rows])


if __name__ == "__main__":
    main()
