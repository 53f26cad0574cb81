import re
import struct
import subprocess

import cv2
import imageio_ffmpeg
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.core import Decision, Policy
from agents.rollout import returns
from envs.transforms import action_repeat, frame_stack, time_limit
from envs.vector import vectorise
from experiments import overlay, record
from experiments.folder import RunError
from iap import Attention
from iap.patches import centres
from tests.probes import dot_world

CENTRES = centres(12, 12, 2, 2)
STYLE = overlay.Style((12, 12), 2, 2, dot_world().spec.action, ("down", "right"))


def follower() -> Policy:
    """Looks at the four lightest patches of 2x2 and pushes the dot to the middle."""

    def act(params, carry, observation, key=None):
        newest = observation[..., -3].astype(jnp.float32)
        scores = jnp.max(newest.reshape(6, 2, 6, 2), axis=(1, 3)).reshape(-1)
        _, index = jax.lax.top_k(scores, 4)
        index = jnp.sort(index)
        centre = jnp.asarray(CENTRES)[index]
        share = scores[index][:, None] / jnp.sum(scores[index])
        action = jnp.tanh(params * (6 - jnp.sum(centre * share, axis=0)))
        # The memory counts decisions: a replay that lost some would act otherwise.
        action = action * jnp.where(carry % 2 == 0, 1.0, 0.5)
        return carry + 1, Decision(action, Attention(scores, index, centre))

    return Policy(lambda key: jnp.float32(0.3), lambda: jnp.int32(0), act)


def read(path) -> tuple[str, np.ndarray]:
    """What a player finds in the file: the stream's description and its frames."""
    done = subprocess.run(
        [
            *(imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path)),
            *("-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"),
        ],
        capture_output=True,
        check=True,
    )
    stream = re.search(r"Stream .*Video: (.*)", done.stderr.decode())
    assert stream
    width, height = map(int, re.findall(r"(\d+)x(\d+)", stream[1])[-1])
    pictures = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
    return stream[1], pictures


def boxes_of(path) -> list[str]:
    """The names of an mp4's outermost boxes, in order."""
    content, at, names = path.read_bytes(), 0, []
    while at < len(content):
        size, name = struct.unpack(">I4s", content[at : at + 8])
        names.append(name.decode())
        at += size
    return names


@pytest.fixture(scope="module")
def shot(tmp_path_factory):
    """One film of an episode with repeated actions and stacked pictures."""
    game = dot_world(max_steps=20, noise=0.3)
    env = frame_stack(action_repeat(game, 3), 2)
    film = record.recorder(game, env, follower(), STYLE)
    path = tmp_path_factory.mktemp("film") / "videos" / "dot.mp4"
    key = jax.random.key(5)
    made = film(
        path, jnp.float32(0.3), game.world, 3, key, title="Dot", height=240, stills=2
    )
    return made, game, env, film, key


def test_a_browser_can_play_it_and_no_frame_is_missing(shot):
    made, game, *_ = shot
    facts, pictures = read(made.path)
    assert facts.startswith("h264") and "yuv420p" in facts
    assert f"{game.spec.fps} fps" in facts
    assert pictures.shape[1:] == (240, 240 + overlay.panel_width(240), 3)
    # 20 steps of the game, and the state that they end in.
    assert len(pictures) == made.frames == 21
    assert made.decisions == 7
    names = boxes_of(made.path)
    assert names.index("moov") < names.index("mdat")


def test_it_shows_the_episode_that_the_policy_was_scored_by(shot):
    made, game, env, _, key = shot
    worlds, act = vectorise(env, 1), jax.vmap(follower().act, (None, 0, 0))

    @jax.jit
    def score(world):
        return returns(
            worlds,
            world,
            lambda carry, seen: act(jnp.float32(0.3), carry, seen),
            jnp.zeros(1, jnp.int32),
            jnp.array([3]),
            key[None],
        )

    stats = score(game.world)
    # Sums of 20 rewards near 1 in float32, in two orders.
    np.testing.assert_allclose(made.total, stats.returns[0], rtol=1e-5)
    assert made.decisions == int(stats.decisions[0])
    assert made.frames == int(stats.frames[0]) + 1


def test_every_frame_is_the_games_own_state_with_the_decision_in_force(shot):
    """Painted once more from states stepped by hand, and compared with the video."""
    made, game, env, _, key = shot
    act, step, observe = map(jax.jit, (follower().act, env.step, env.observe))
    carry = jnp.int32(0)
    state = env.reset(game.world, jnp.int32(3), record.reset_key(key))
    pictures = read(made.path)[1]
    for t in range(made.decisions):
        seen = observe(game.world, state)
        carry, decision = act(jnp.float32(0.3), carry, seen)
        painted = env.paint(game.world, state, 240, 240)
        scores = np.asarray(decision.attention.scores)
        chosen = scores[np.asarray(decision.attention.index)]
        lit = overlay.attend(
            STYLE,
            painted,
            overlay.Moment(
                scores,
                np.asarray(decision.attention.centre),
                np.array([np.sum(chosen > c) for c in chosen]),
                *(np.asarray(decision.action), 0.0, 0.0),
            ),
        )
        # H.264 at this quality is off by a few levels, most at sharp edges.
        shown = pictures[3 * t, :, :240].astype(int)
        assert np.abs(shown - lit).mean() < 6
        step_key = record.step_key(key, t)
        state, _ = step(game.world, state, decision.action, step_key)


def test_stills_are_frames_of_the_film(shot):
    made, *_ = shot
    assert [path.name for path in made.stills] == ["dot-1.png", "dot-2.png"]
    pictures = read(made.path)[1]
    for number, path in zip((7, 13), made.stills, strict=True):
        still = cv2.imread(str(path))[..., ::-1].astype(int)
        differences = np.abs(pictures.astype(int) - still).mean(axis=(1, 2, 3))
        assert differences.argmin() == number
    assert sorted(p.name for p in made.path.parent.iterdir()) == [
        "dot-1.png",
        "dot-2.png",
        "dot.mp4",
    ]


def test_it_stops_where_the_world_ends_the_episode(shot, tmp_path):
    _, game, _, film, key = shot
    # Pushed away from the middle, the dot leaves the picture.
    made = film(tmp_path / "a.mp4", jnp.float32(-2.0), game.world, 3, key, height=120)
    assert made.frames < 21
    assert made.decisions == -(-(made.frames - 1) // 3)
    assert len(read(made.path)[1]) == made.frames


def test_a_time_limit_inside_a_repeated_action_is_kept(tmp_path):
    game = time_limit(dot_world(max_steps=20), 7)
    film = record.recorder(game, action_repeat(game, 3), follower(), STYLE)
    made = film(
        *(tmp_path / "a.mp4", jnp.float32(0.3), game.world, 0, jax.random.key(0)),
        height=120,
        stills=0,
    )
    assert (made.frames, made.decisions, made.stills) == (8, 3, ())


def test_the_same_episode_is_the_same_film(shot, tmp_path):
    made, game, _, film, key = shot
    arguments = jnp.float32(0.3), game.world, 3, key
    again = film(tmp_path / "b.mp4", *arguments, title="Dot", height=240, stills=2)
    assert again.path.read_bytes() == made.path.read_bytes()


def test_a_replay_that_comes_out_differently_makes_no_film(tmp_path):
    film = record.recorder(
        dot_world(noise=0.5), action_repeat(dot_world(noise=0.1), 2), follower(), STYLE
    )
    with pytest.raises(RunError, match=r"no film was made: .* return was .* replayed"):
        film(
            *(tmp_path / "a.mp4", jnp.float32(0.3), dot_world().world, 0),
            jax.random.key(0),
        )
    assert not list(tmp_path.iterdir())


def test_settings_that_cannot_be_filmed_are_refused(shot, tmp_path):
    _, game, _, film, key = shot
    twice, thrice = action_repeat(game, 2), action_repeat(game, 3)
    with pytest.raises(ValueError, match="action_repeat=3 cannot be replayed"):
        record.recorder(twice, thrice, follower(), STYLE)
    with pytest.raises(ValueError, match="height is 241"):
        film(tmp_path / "a.mp4", jnp.float32(0), game.world, 0, key, height=241)


def test_an_encoder_that_fails_leaves_the_old_film(shot, tmp_path, monkeypatch):
    _, game, _, film, key = shot
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    monkeypatch.setattr(overlay, "frame", lambda *_: np.zeros((121, 121, 3), np.uint8))
    with pytest.raises(RunError, match=r"cannot write .*a.mp4: ffmpeg"):
        film(path, jnp.float32(0.3), game.world, 3, key, stills=0)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_without_ffmpeg_the_cure_is_named(tmp_path, monkeypatch):
    def missing():
        raise RuntimeError("none")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    with (
        pytest.raises(RunError, match="IMAGEIO_FFMPEG_EXE"),
        record.encoder(tmp_path / "a.mp4", (2, 2), 10),
    ):
        pytest.fail("encoded without an encoder")
