"""Films of episodes: every game frame drawn large, with what the policy looked at.

An episode is played twice. First by the policy, in the world as it sees it, all in one
compiled loop that keeps each decision; then the same actions in the game itself, frame
by frame, to be painted. Keys are derived by name, so that both are the same episode.
"""

import contextlib
import itertools
import math
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from agents import host_rollout
from agents.core import Decision, Params, Policy
from agents.rollout import reset_key, step_key
from envs.core import Environment, HostVectorEnv, Moment
from experiments import overlay
from experiments.folder import RunError, replacing


class Episode(NamedTuple):
    """What a policy did in one episode, on the host.

    Attributes:
      decision: Decision, leaves [T, ...]: actions and what was attended to.
      reward: f32[T], of each decision.
      decisions: how many of the T were taken before the episode ended.
    """

    decision: Decision
    reward: np.ndarray
    decisions: int


class Film(NamedTuple):
    """A film on disk.

    Attributes:
      path: the mp4.
      stills: PNG pictures taken from it.
      total: the episode's return.
      decisions: taken by the policy.
      frames: pictures in the film: one for each game frame, and the last state's.
    """

    path: Path
    stills: tuple[Path, ...]
    total: float
    decisions: int
    frames: int


Recorder = Callable[..., Film]


def recorder(
    game: Environment, env: Environment, policy: Policy, style: overlay.Style
) -> Recorder:
    """Makes films of a policy; compiles once for all of them.

    Args:
      game: the world one game frame at a time, with its own time limit.
      env: the same world as the policy knows it, perhaps with repeated actions.
      policy: what acts, in its mode.
      style: how frames are drawn; its titles are replaced for each film.

    Returns:
      (path, params, world, episode, key, *, title, subtitle, height, stills) -> Film.

    Raises:
      ValueError: `env` is not `game` with its actions repeated a whole number of times.
    """
    repeat, rest = divmod(env.spec.action_repeat, game.spec.action_repeat)
    if rest or repeat < 1:
        raise ValueError(
            f"a world with action_repeat={env.spec.action_repeat} cannot be replayed "
            f"in one with {game.spec.action_repeat}; film the game itself"
        )
    play = jax.jit(_play(env, policy))
    reset = jax.jit(game.reset)

    @jax.jit
    def step(world, state, action, key, t, i):
        frame_key = step_key(key, t)
        if repeat > 1:  # as `action_repeat` derives it
            frame_key = jax.random.fold_in(frame_key, i)
        state, outcome = game.step(world, state, action, frame_key)
        return state, outcome.reward, outcome.terminated | outcome.truncated

    def replay(
        world, episode, key, played: Episode
    ) -> Iterator[tuple[Any, int, float]]:
        """Game states with the decision in force and the return before each."""
        state, total = reset(world, episode, reset_key(key)), 0.0
        for t in range(played.decisions):
            for i in range(repeat):
                yield jax.device_get(state), t, total
                action = played.decision.action[t]
                state, reward, over = step(world, state, action, key, t, i)
                total += float(reward)
                if over:
                    break
        yield jax.device_get(state), played.decisions - 1, total

    def film(
        path: Path,
        params: Params,
        world: Any,
        episode: int,
        key: jax.Array,
        *,
        title: str = "",
        subtitle: str = "",
        height: int = 720,
        stills: int = 3,
    ) -> Film:
        """Films one episode as H.264 mp4 and takes PNG stills from it.

        Args:
          path: the mp4; stills lie beside it as `<stem>-1.png` and so on.
          params: the policy's parameters.
          world: the world's constant data.
          episode: the level.
          key: the episode's own key, from which all its randomness is derived.
          title: first line beside the picture.
          subtitle: second line.
          height: of the film in pixels, an even number.
          stills: how many.

        Raises:
          RunError: the files cannot be written, or the replay came out differently.
          ValueError: the height is odd or too small to draw in.
        """
        _check_height(height)
        played = _on_host(*play(params, world, jnp.int32(episode), key))
        moments = list(replay(world, jnp.int32(episode), key, played))
        total = math.fsum(played.reward[: played.decisions])
        _check_replay(total, moments[-1][2])
        look = style._replace(title=title, subtitle=subtitle)
        host = jax.device_get(world)  # once, and not by every `paint`
        frames = _frames(game, host, look, played, moments, height)
        taken = _still_numbers(len(moments), stills)
        saved = _write_video(path, frames, game.spec.fps, taken)
        return Film(path, saved, total, played.decisions, len(moments))

    return film


def host_recorder(env: HostVectorEnv, policy: Policy, style: overlay.Style) -> Recorder:
    """As `recorder`, for simulators on the host.

    An episode is played twice here too: the first time tells how long it is.

    Returns:
      (path, params, level, *, title, subtitle, height, stills) -> Film, where the level
      is the seed of the episode. It raises ChildProcessError where the simulator fails
      time and again.
    """
    act = host_rollout.acting(policy)
    H, W = style.image

    def film(
        path: Path,
        params: Params,
        level: int,
        *,
        title: str = "",
        subtitle: str = "",
        height: int = 720,
        stills: int = 3,
    ) -> Film:
        _check_height(height)
        width = round(height * W / H / 2) * 2
        look = style._replace(title=title, subtitle=subtitle)
        shape = height, width + overlay.panel_width(height)
        stats = host_rollout.returns(
            env, act, policy.start(), lambda _: params, [level]
        )
        expected, frames = float(stats.returns[0]), int(stats.frames[0]) + 1
        taken = _still_numbers(frames, stills)

        def begin(_: int, seen: Moment):
            carry, total, number = policy.start(), 0.0, itertools.count()
            (ahead,) = seen.paintings
            with _writing(path, shape, env.spec.fps, taken) as add:

                def show(picture: np.ndarray, decision: Decision) -> None:
                    seconds = next(number) / env.spec.fps
                    moment = _moment(decision, total, seconds)
                    add(overlay.frame(look, picture, moment))

                while True:
                    carry, decision = act(params, carry, seen.observation)
                    decision = jax.device_get(decision)
                    show(ahead, decision)
                    seen = yield np.asarray(decision.action)
                    *between, ahead = seen.paintings
                    for picture in between:
                        show(picture, decision)
                    total += seen.reward
                    if seen.terminated or seen.truncated:
                        break
                show(ahead, decision)
                _check_again(expected, total)
            return total

        (total,) = env.play([level], begin, (height, width))
        made = tuple(_still(path, i) for i in range(stills))
        return Film(path, made, total, int(stats.decisions[0]), frames)

    return film


def _check_height(height: int) -> None:
    if height % 2 or height < 120:
        raise ValueError(f"height is {height}; it must be even and at least 120")


def _check_again(first: float, second: float) -> None:
    """The two returns may differ by float32 rounding."""
    if abs(first - second) > 1e-3 * max(1.0, abs(first)):
        raise RunError(
            f"no film was made: the episode's return was {first:.3f}, and the second "
            f"time it was {second:.3f}; this simulator does not repeat an episode from "
            "its seed"
        )


def _play(env: Environment, policy: Policy) -> Callable:
    """(params, world, episode, key) -> (Decision [T], rewards f32[T], decisions)."""

    def play(params, world, episode, key):
        def decide(state_carry_alive, t):
            state, carry, alive = state_carry_alive
            carry, decision = policy.act(params, carry, env.observe(world, state), None)
            state, outcome = env.step(world, state, decision.action, step_key(key, t))
            over = outcome.terminated | outcome.truncated
            return (state, carry, alive & ~over), (decision, outcome.reward, alive)

        start = env.reset(world, episode, reset_key(key)), policy.start(), True
        _, (decision, reward, alive) = jax.lax.scan(
            decide, start, jnp.arange(env.spec.max_steps)
        )
        return decision, reward, jnp.sum(alive, dtype=jnp.int32)

    return play


def _on_host(decision: Decision, reward: jax.Array, count: jax.Array) -> Episode:
    return Episode(jax.device_get(decision), np.asarray(reward), int(count))


def _check_replay(played: float, replayed: float) -> None:
    """The two returns may differ by float32 rounding, 1e-3 of a point, no more."""
    if abs(played - replayed) > 1e-3 * max(1.0, abs(played)):
        raise RunError(
            f"no film was made: the episode's return was {played:.3f}, but replayed "
            f"frame by frame it came to {replayed:.3f}, so that the pictures would not "
            "show it; rounding decided this episode, film another"
        )


def _frames(
    game: Environment,
    world: Any,
    style: overlay.Style,
    played: Episode,
    moments: list,
    height: int,
) -> Iterator[np.ndarray]:
    H, W = style.image
    width = round(height * W / H / 2) * 2
    for number, (state, t, total) in enumerate(moments):
        decision = jax.tree.map(lambda x, t=t: x[t], played.decision)
        moment = _moment(decision, total, number / game.spec.fps)
        picture = game.paint(world, state, height, width)
        yield overlay.frame(style, picture, moment)


def _moment(decision: Decision, total: float, seconds: float) -> overlay.Moment:
    """One decision as the overlay draws it."""
    scores, index, centre = map(np.asarray, decision.attention)
    return overlay.Moment(
        scores=scores,
        centre=centre,
        ranks=np.argsort(np.argsort(-scores[index], kind="stable")),
        action=np.asarray(decision.action),
        total=total,
        seconds=seconds,
    )


def _still_numbers(frames: int, stills: int) -> list[int]:
    """Frame numbers spread evenly over a film, ends left out."""
    return [round((i + 1) * (frames - 1) / (stills + 1)) for i in range(stills)]


def _write_video(
    path: Path, frames: Iterator[np.ndarray], fps: int, taken: list[int]
) -> tuple[Path, ...]:
    """Encodes the frames, whole or not at all, and saves some of them as PNG."""
    first = next(frames)
    with _writing(path, first.shape[:2], fps, taken) as add:
        for frame in itertools.chain([first], frames):
            add(frame)
    return tuple(_still(path, i) for i in range(len(taken)))


@contextlib.contextmanager
def _writing(
    path: Path, size: tuple[int, int], fps: int, taken: list[int]
) -> Iterator[Callable[[np.ndarray], None]]:
    """A film that is there when all its frames have been added, and not before."""
    count = itertools.count()
    with replacing(path) as temporary, encoder(temporary, size, fps) as feed:

        def add(frame: np.ndarray) -> None:
            number = next(count)
            feed(frame)
            if number in taken:
                save_png(_still(path, taken.index(number)), frame)

        yield add


def _still(path: Path, index: int) -> Path:
    return path.with_name(f"{path.stem}-{index + 1}.png")


@contextlib.contextmanager
def encoder(
    path: Path, size: tuple[int, int], fps: int
) -> Iterator[Callable[[np.ndarray], object]]:
    """An H.264 file that browsers play; gives the function that takes its frames.

    ffmpeg is started here and not by imageio-ffmpeg, which forks Python itself to do
    so: that can lock up a process in which JAX has threads.

    Args:
      path: the mp4.
      size: height and width in pixels, both even (half as many of each for colour).
      fps: frames per second.

    Raises:
      RunError: there is no ffmpeg.
      OSError: ffmpeg failed; its own words.
    """
    import imageio_ffmpeg

    try:
        ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise RunError(
            "there is no ffmpeg to write films with; install one, or set "
            "IMAGEIO_FFMPEG_EXE to where it is"
        ) from error
    height, width = size
    process = subprocess.Popen(
        [
            *(ffmpeg, "-y", "-loglevel", "error"),
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"),
            *("-r", str(fps), "-i", "-"),
            *("-c:v", "libx264", "-preset", "veryfast", "-crf", "20"),
            *("-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)),
        ],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,  # Ctrl-C is for us: ffmpeg ends when its input does
    )
    feed, words = process.stdin, process.stderr
    assert feed and words
    with process:
        with contextlib.suppress(BrokenPipeError):  # ffmpeg says why, below
            yield lambda frame: feed.write(np.ascontiguousarray(frame).data)
            feed.close()
        said = words.read().decode(errors="replace").strip()
    if process.returncode:
        raise OSError(f"ffmpeg: {said.splitlines()[-1] if said else 'failed'}")


def save_png(path: Path, image: np.ndarray) -> None:
    """Saves a picture, u8[h, w, 3], whole or not at all."""
    with replacing(path) as temporary:
        if not cv2.imwrite(str(temporary), np.ascontiguousarray(image[..., ::-1])):
            raise OSError(f"OpenCV could not write {temporary.name}")
