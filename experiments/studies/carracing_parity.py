"""CarRacing here and in Gymnasium: the same game, or how far from it.

    python -m experiments.studies.carracing_parity

Plays Gymnasium's CarRacing, plays the same actions here, and compares tracks, motion,
pictures and rules. Prints a table of what was measured, the bar for it and whether it
holds; writes parity.csv and parity.png, some frames side by side. Takes a few minutes.
"""

import argparse
import csv
import operator
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from envs.car_racing import env as car_racing
from envs.car_racing import palette, track
from envs.car_racing.contacts import WORDS
from envs.car_racing.reference import (
    Act,
    Recording,
    Reference,
    careless,
    record,
    smooth,
    state_of,
    uniform,
    wild,
)
from envs.car_racing.state import State
from envs.core import Environment

RELATIONS = {"<": operator.lt, ">=": operator.ge, "=": operator.eq}
CLOSE = 0.01
"""Returns that differ by less are equal: a tile is worth at least 2.5."""
KEY = jax.random.key(0)

ZOOM = (0, 2, 5, 9, 14, 20, 27, 34, 41, 48)
"""Frames within the first second's zoom, by the number of actions taken."""
DRIVE = (49, 60, 80, 105, 130, 160, 190, 220, 260, 300, 350, 400, 460, 520, 590)
"""Frames afterwards."""

MARK = 60
"""Actions after which most tiles are declared visited."""
SEQUENCES = {"random": uniform, "smooth": smooth, "wild": wild}


class Row(NamedTuple):
    """One comparison.

    Attributes:
      what: is compared.
      n: of what it was measured on.
      measured: the number.
      bar: relation and number that it has to meet, "" for what is told for comparison.
      holds: whether it does.
    """

    what: str
    n: int
    measured: float
    bar: str
    holds: bool | None


def row(what: str, n: int, measured: float, relation: str, bar: float) -> Row:
    """A row whose measured number stands in `relation` to `bar`, or does not."""
    holds = bool(RELATIONS[relation](measured, bar))
    return Row(what, n, float(measured), f"{relation} {bar:g}", holds)


def note(what: str, n: int, measured: float) -> Row:
    """A number without a bar."""
    return Row(what, n, float(measured), "", None)


def count(what: str, equal: Sequence[bool]) -> Row:
    """A row of cases that all have to be equal."""
    return row(what, len(equal), sum(map(bool, equal)), "=", len(equal))


class Replay(NamedTuple):
    """What became of the actions of S recordings here, up to T steps each.

    Attributes:
      error: distances of the hull from Gymnasium's, f64[T] each.
      rewards: f32[T] each.
      ended: whether and at which step the world ended the episode, else T.
    """

    error: list[np.ndarray]
    rewards: list[np.ndarray]
    ended: list[int]


def replay(
    env: Environment,
    recordings: Sequence[Recording],
    mark: Callable = lambda states: states,
) -> Replay:
    """Plays the actions of recordings, recording i on level i, all at once.

    Args:
      env: the world.
      recordings: of its levels.
      mark: (states) -> states, applied after `MARK` steps.
    """
    longest = max(len(r.actions) for r in recordings)
    first = recordings[0].actions
    actions = np.zeros((len(recordings), longest, *first.shape[1:]), first.dtype)
    for i, r in enumerate(recordings):
        actions[i, : len(r.actions)] = r.actions

    @jax.jit
    @jax.vmap
    def roll(state, actions):
        def body(state, action):
            state, outcome = env.step(env.world, state, action, KEY)
            return state, (state.x, state.y, outcome)

        return jax.lax.scan(body, state, actions)

    levels = jnp.arange(len(recordings), dtype=jnp.int32)
    state = jax.vmap(env.reset, (None, 0, None))(env.world, levels, KEY)
    state, before = roll(state, actions[:, :MARK])
    _, after = roll(mark(state), actions[:, MARK:])
    x, y, outcome = jax.tree.map(
        lambda a, b: np.concatenate([a, b], axis=1), before, after
    )
    result = Replay([], [], [])
    for i, r in enumerate(recordings):
        steps = len(r.actions)
        result.error.append(
            np.hypot(x[i, :steps] - r.poses[1:, 0], y[i, :steps] - r.poses[1:, 1])
        )
        result.rewards.append(outcome.reward[i, :steps])
        ends = np.flatnonzero(outcome.terminated[i, :steps])
        result.ended.append(int(ends[0]) if len(ends) else steps)
    return result


def ended(recording: Recording) -> int:
    """The step that ended an episode, or how many there were."""
    return len(recording.actions) - int(recording.terminated)


def tracks(seeds: Sequence[int], **settings) -> list[Row]:
    """Tiles, kerbs, start and colours of tracks."""
    same_count, same_kerbs, same_colours, offsets = [], [], [], []
    for seed in seeds:
        env = Reference(**settings)
        env.reset(seed=seed)
        tiles, kerbs = [], {}
        for corners, colour in env.road_poly:
            if isinstance(colour, tuple):
                kerbs[len(tiles) - 1] = corners, colour
            else:
                tiles.append(corners)
        ours = track.generate(seed, **settings)
        same_count.append(ours.count == len(tiles))
        borders = np.flatnonzero(ours.has_border)
        colours = [(255, 255, 255) if i % 2 == 0 else (255, 0, 0) for i in borders]
        same_kerbs.append(
            list(borders) == list(kerbs) and colours == [c for _, c in kerbs.values()]
        )
        kinds = [palette.ROAD, palette.DARK, palette.LIGHT]
        theirs = np.floor([env.road_color, env.bg_color, env.grass_color])
        same_colours.append((ours.ground[kinds] == theirs).all())
        if same_count[-1] and same_kerbs[-1]:
            pairs = (
                (ours.tiles[: len(tiles)], tiles),
                (ours.borders[borders], [k for k, _ in kerbs.values()]),
                (ours.start, env.track[0][1:4]),
            )
            offsets.append(
                max(np.abs(a - np.array(b)).max(initial=0) for a, b in pairs)
            )
        env.close()
    n, kind = len(seeds), "randomised tracks" if settings else "tracks"
    return [
        count(f"{kind}: as many tiles", same_count),
        count(f"{kind}: the same kerbs", same_kerbs),
        count(f"{kind}: the same colours", same_colours),
        row(f"{kind}: largest offset of a corner or start", n, max(offsets), "<", 5e-5),
    ]


def single_steps(seeds: Sequence[int], steps: int = 500) -> list[Row]:
    """One step from states that are Gymnasium's own: what the model adds, no history.

    What is left is rounding: at coordinates of 200 a float32 has steps of 1.5e-5.
    """
    env = car_racing.make(seeds, size=16)
    step = jax.jit(jax.vmap(env.step, (None, 0, 0, None)))
    worst = {"position": [], "heading": [], "velocity": [], "steering angle": []}
    unlike, n = 0, 0
    for i, seed in enumerate(seeds):
        states: list[State] = []

        def act(env: Reference, states=states, i=i) -> np.ndarray:
            states.append(state_of(env, i))
            return careless(env)

        actions = record(seed, steps, act).actions
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
        before, after = (
            jax.tree.map(lambda a, part=part: a[part], stacked)
            for part in (slice(-1), slice(1, None))
        )
        ours, _ = jax.device_get(step(env.world, before, actions[:-1], KEY))
        worst["position"].append(np.hypot(ours.x - after.x, ours.y - after.y).max())
        worst["heading"].append(np.abs(ours.angle - after.angle).max())
        worst["velocity"].append(np.hypot(ours.vx - after.vx, ours.vy - after.vy).max())
        worst["steering angle"].append(np.abs(ours.joint - after.joint).max())
        unlike += int((ours.road != after.road).sum())
        n += len(ours.x)
    bars = {"position": 1e-4, "heading": 1e-5, "velocity": 1e-4, "steering angle": 5e-5}
    return [
        *(
            row(f"one step: largest error of the {what}", n, max(worst[what]), "<", bar)
            for what, bar in bars.items()
        ),
        row("one step: wheels on the road in one game only", 4 * n, unlike, "=", 0),
    ]


def turned(seed: int, recording: Recording) -> Recording:
    """A recording's actions in Gymnasium, from a car turned by one float32 step."""

    def prepare(env: Reference) -> None:
        if env.taken == 0:
            angle = np.float32(env.car.hull.angle)
            env.car.hull.angle = float(np.nextafter(angle, np.float32(np.inf)))

    return record(
        seed,
        len(recording.actions),
        lambda env: recording.actions[env.taken],
        prepare=prepare,
    )


def _distances(a: Recording, b: Recording) -> np.ndarray:
    """f64[T], as long as both go on."""
    steps = min(len(a.poses), len(b.poses))
    return np.hypot(*(a.poses[1:steps, :2] - b.poses[1:steps, :2]).T)


def drives(seeds: Sequence[int], steps: int = 1000) -> list[Row]:
    """The driver that follows the road, replayed without looking.

    Beside it stands what one float32 step in the car's heading at the start makes of
    the same drives in Gymnasium itself: Box2D's arithmetic is float32, and no port is
    nearer to it than it is to itself unless it rounds alike everywhere.
    """
    env = car_racing.make(seeds, size=16)
    recordings = [record(seed, steps) for seed in seeds]
    ours = replay(env, recordings)
    others = [turned(seed, r) for seed, r in zip(seeds, recordings, strict=True)]
    returns = [
        abs(a.sum(dtype=np.float64) - r.rewards.sum())
        for a, r in zip(ours.rewards, recordings, strict=True)
    ]
    own_returns = [
        abs(r.rewards.sum() - other.rewards.sum())
        for r, other in zip(recordings, others, strict=True)
    ]
    ends = [a == ended(r) for a, r in zip(ours.ended, recordings, strict=True)]
    full = [e for e, r in zip(ends, recordings, strict=True) if r.terminated]
    errors = np.concatenate(ours.error)
    own = np.concatenate(
        [_distances(r, o) for r, o in zip(recordings, others, strict=True)]
    )
    n, itself = len(seeds), "Gymnasium and itself, turned by a rounding"
    return [
        count(f"drives: returns within {CLOSE:g}", [d < CLOSE for d in returns]),
        row("drives: largest difference of returns", n, max(returns), "<", CLOSE),
        note(f"{itself}: the same", n, max(own_returns)),
        row("drives: median position error", n, float(np.median(errors)), "<", 0.02),
        note(f"{itself}: the same", n, float(np.median(own))),
        row("drives: largest position error", n, errors.max(), "<", 0.1),
        note(f"{itself}: the same", n, own.max()),
        count("drives: ended alike, or not", ends),
        count("drives: ended with all tiles visited", full),
    ]


def sequences(
    name: str, seeds: Sequence[int], make: Callable[[np.random.Generator], Act]
) -> Row:
    """Actions that look at nothing."""
    recordings = [record(s, 200, make(np.random.default_rng(s))) for s in seeds]
    ours = replay(car_racing.make(seeds, size=16), recordings)
    largest = max(error.max() for error in ours.error)
    return row(f"{name} actions: position error", len(seeds), largest, "<", 0.05)


class Frames(NamedTuple):
    """N frames, theirs and ours, u8[N, 96, 96, 3], and actions taken, i32[N]."""

    theirs: np.ndarray
    ours: np.ndarray
    taken: np.ndarray


def frames(seeds: Sequence[int], wanted: Sequence[int], **settings) -> Frames:
    """Gymnasium's frames, and ours of the same states."""
    recordings = [
        record(s, max(wanted), careless, frames=wanted, track=i, **settings)
        for i, s in enumerate(seeds)
    ]
    states = [state for r in recordings for state in r.states]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
    env = car_racing.make(seeds, **settings)
    observe = jax.jit(jax.vmap(env.observe, (None, 0)))
    return Frames(
        np.concatenate([r.images for r in recordings]),
        np.asarray(observe(env.world, stacked)),
        stacked.step,
    )


def pictures(name: str, shots: Frames) -> list[Row]:
    """Differences of the worst frames."""
    apart = np.abs(shots.theirs.astype(int) - shots.ours)
    mean, near = apart.mean((1, 2, 3)), (apart.max(-1) <= 16).mean((1, 2))
    zooming = shots.taken < DRIVE[0]
    still = ~zooming
    return [
        row(f"{name}: largest mean difference", len(mean), mean.max(), "<", 1.0),
        row(
            f"{name}: least share within 16, zooming in",
            int(zooming.sum()),
            near[zooming].min(),
            ">=",
            0.97,
        ),
        row(
            f"{name}: least share within 16, afterwards",
            int(still.sum()),
            near[still].min(),
            ">=",
            0.98,
        ),
    ]


def sheet(shots: Frames, rows: Sequence[int], amplify: int = 4) -> np.ndarray:
    """Chosen frames, u8[H, W, 3]: Gymnasium's, ours, their amplified difference."""
    lines = []
    for i in rows:
        theirs, ours = shots.theirs[i], shots.ours[i]
        apart = np.minimum(np.abs(theirs.astype(int) - ours) * amplify, 255)
        line = np.concatenate([theirs, ours, apart.astype("u1")], axis=1)
        lines.append(line)
    half = len(lines) // 2
    columns = [np.concatenate(part) for part in (lines[:half], lines[half:])]
    return np.concatenate(columns, axis=1).repeat(2, axis=0).repeat(2, axis=1)


def _straight_on(env: Reference) -> np.ndarray:
    return np.array([0, 0.2, 0], np.float32)


def _circle(env: Reference) -> np.ndarray:
    """Returns to the start after about 200 steps."""
    slow = np.hypot(*env.car.hull.linearVelocity) < 12
    return np.array([-1, 0.2 * slow, 0], np.float32)


def _most(tiles: int, share: float, start: bool) -> np.ndarray:
    """bool[32 * WORDS]: the first tiles up to a share, with or without tile 0."""
    visited = np.arange(32 * WORDS) <= share * tiles
    visited[0] = start
    return visited


def _marked(states: State, tiles: np.ndarray, share: float, start: bool) -> State:
    """Cars that have visited most tiles of their tracks."""
    flags = np.stack([_most(n, share, start) for n in tiles])
    words = np.packbits(flags, axis=1, bitorder="little").view(np.uint32)
    count = jnp.asarray(flags.sum(axis=1), jnp.int32)
    return states._replace(visited=jnp.asarray(words), visited_count=count)


def _round_again(seed: int, required: float, share: float) -> Recording:
    """A circle in Gymnasium, at whose end tile 0 is met as if for the first time."""

    def prepare(env: Reference) -> None:
        if env.taken == MARK:
            flags = _most(len(env.road), share, start=False)
            for tile in env.road:
                tile.road_visited = bool(flags[tile.idx])
            env.tile_visited_count = int(flags.sum())

    return record(seed, 400, _circle, prepare=prepare, lap_complete_percent=required)


def laps(seeds: Sequence[int]) -> list[Row]:
    """Both lap rules at several shares, by a circle back to the start.

    Gymnasium's rule ends an episode only where tile 0 was not counted at the reset, so
    it is made not to be. The intended rule has to end it at the same step although it
    was.
    """
    rows = []
    for required, share in ((0.95, 0.97), (0.95, 0.90), (0.5, 0.55), (0.5, 0.45)):
        theirs = [_round_again(seed, required, share) for seed in seeds]
        end = "end" if share > required else "do not end"
        expected = all(r.terminated == (share > required) for r in theirs)
        for rule in car_racing.LAP_RULES:
            env = car_racing.make(
                seeds, size=16, lap_rule=rule, lap_complete_percent=required
            )
            tiles = np.asarray(env.world.roads.tracks.count)
            mark = partial(_marked, tiles=tiles, share=share, start=rule == "intended")
            ours = replay(env, theirs, mark)
            alike = [
                expected and a == ended(r)
                for a, r in zip(ours.ended, theirs, strict=True)
            ]
            rows.append(
                count(f"lap rule {rule}: {share:.0%} {end} at {required:.0%}", alike)
            )
    return rows


def rules(seeds: Sequence[int]) -> list[Row]:
    """The field's edge, the clock, the lap and the five choices."""
    env = car_racing.make(seeds, size=16)
    straight = [record(seed, 1000, _straight_on) for seed in seeds]
    ours = replay(env, straight)
    lost = [
        r.terminated and r.rewards[-1] == a[-1] == -100 and e == ended(r)
        for r, a, e in zip(straight, ours.rewards, ours.ended, strict=True)
    ]

    limit = gymnasium.spec("CarRacing-v3").max_episode_steps or 0
    late = jax.vmap(env.reset, (None, 0, None))(env.world, jnp.arange(2), KEY)
    late = late._replace(step=jnp.array([limit - 2, limit - 1], jnp.int32))
    clock = jax.vmap(env.step, (None, 0, None, None))
    _, outcome = clock(env.world, late, jnp.zeros(3), KEY)
    in_time = list(outcome.truncated) == [False, True] and not outcome.terminated.any()

    def choose(env: Reference) -> np.ndarray:
        rng = np.random.default_rng(env.taken // 8)
        return np.array(3 if env.taken < 80 else rng.integers(5), np.int32)

    choices = [record(seed, 400, choose, continuous=False) for seed in seeds]
    ours = replay(car_racing.make(seeds, size=16, continuous=False), choices)
    returns = [
        abs(a.sum(dtype=np.float64) - r.rewards.sum())
        for a, r in zip(ours.rewards, choices, strict=True)
    ]
    largest = max(error.max() for error in ours.error)
    return [
        count("leaving the field: -100 and the end at the same step", lost),
        count(f"the clock: truncated, not terminated, after {limit} steps", [in_time]),
        *laps(seeds),
        count(f"five choices: returns within {CLOSE:g}", [d < CLOSE for d in returns]),
        row("five choices: position error", len(seeds), largest, "<", 0.05),
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what | n | measured | bar | holds |", "|---|---|---|---|---|"]
    for r in rows:
        holds = {None: "", True: "yes", False: "**no**"}[r.holds]
        lines.append(f"| {r.what} | {r.n} | {r.measured:.4g} | {r.bar} | {holds} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table; writes it and the sheet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write to")
    parser.add_argument("--tracks", type=int, default=200, help="tracks to compare")
    parser.add_argument("--drives", type=int, default=32, help="drives of 1,000 steps")
    parser.add_argument("--first", type=int, default=0, help="seed of the first drive")
    arguments = parser.parse_args(argv)
    eight, sixteen = range(8), range(16)
    shots = frames(eight, ZOOM + DRIVE)
    randomised = frames(eight, ZOOM + DRIVE[:5], domain_randomize=True)
    first = arguments.first
    rows = [
        *tracks(range(arguments.tracks)),
        *tracks(range(arguments.tracks // 4), domain_randomize=True),
        *single_steps(eight),
        *drives(range(first, first + arguments.drives)),
        *(sequences(name, sixteen, make) for name, make in SEQUENCES.items()),
        *pictures("frames", shots),
        *pictures("randomised frames", randomised),
        *rules(eight),
    ]
    print(table(rows))
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(arguments.out / "parity.csv", "w", newline="") as file:
        csv.writer(file).writerows([Row._fields, *rows])
    chosen = [0, 3, 6, 9, 12, 40, 68, 96, 124, 174]
    cv2.imwrite(str(arguments.out / "parity.png"), sheet(shots, chosen)[..., ::-1])


if __name__ == "__main__":
    main()
