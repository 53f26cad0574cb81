"""Driving by hand, in a window that nobody sees, and the film without one."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import registry
from envs.car_racing.driver import drive
from envs.core import Discrete
from experiments import play
from experiments.arguments import compose
from experiments.config import Config, Mode
from experiments.main import main
from tests.experiments.test_record import read

QUICK = ("mode=play", "env=CarRacing", "height=120", "track=17", "env.size=16")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


class Player:
    """Presses and releases keys before given frames; looks at what is shown."""

    def __init__(self, presses):
        self.presses = presses
        self.frame = 0
        self.seen = []

    def sleep(self, seconds):
        """In place of waiting for the next frame."""
        import pygame

        assert 0 <= seconds <= 1
        surface = pygame.display.get_surface()
        self.seen.append(pygame.surfarray.array3d(surface).swapaxes(0, 1))
        self.frame += 1
        assert self.frame < 500, "nobody leaves"
        for press in self.presses.get(self.frame, ()):
            kind = pygame.KEYUP if press.startswith("-") else pygame.KEYDOWN
            key = pygame.key.key_code(press.lstrip("-"))
            pygame.event.post(pygame.event.Event(kind, key=key))


@pytest.fixture
def player(here, monkeypatch):
    """({frame: keys}) -> the player, who is at the wheel then."""

    def seat(presses):
        someone = Player(presses)
        monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
        monkeypatch.setattr(play.time, "sleep", someone.sleep)
        return someone

    return seat


def rollout(settings, level, steps, act):
    """The return of the first steps in the game itself, with act(world, state, t)."""
    config = compose([*QUICK, *settings])
    env = registry.make(config.env, [level])
    state = jax.jit(env.reset)(env.world, jnp.int32(0), jax.random.key(0))
    step, total = jax.jit(env.step), 0.0
    for t in range(steps):
        action = act(env.world, state, t)
        state, outcome = step(env.world, state, action, jax.random.key(0))
        total += float(outcome.reward)
    return total


def test_a_person_drives_to_the_end_and_on_to_the_next_track(player, capsys):
    someone = player({3: ["up"], 15: ["-up", "left"], 30: ["r"], 33: ["escape"]})
    assert main([*QUICK, "env.time_limit=20"]) == 0
    out, err = capsys.readouterr()
    gas, left = np.array([0, 1, 0], "f4"), np.array([-1, 0, 0], "f4")
    total = rollout((), 17, 20, lambda world, state, t: gas if t < 12 else left)
    assert out == f"Track 17: {total:.1f} points in 0.4 s\n"
    assert err == ""
    assert list(Path().iterdir()) == [], "playing leaves nothing behind"
    # The text before the start, the race, the text after its end, the other track.
    before, race, after, other = (someone.seen[i] for i in (1, 10, 28, 31))
    assert not np.array_equal(someone.seen[5], race)
    for text in (before, after, other):
        band = text[19:29]
        assert band.mean() < 0.6 * race[19:29].mean(), "the text stands on a dark band"
        assert band.max() > 150, "and is light"
    assert not np.array_equal(before[19:29], other[19:29]), "which names the track"


def test_nothing_moves_before_the_first_key(player, capsys):
    someone = player({10: ["q"]})
    assert main([*QUICK, "env.time_limit=5"]) == 0
    assert capsys.readouterr().out == ""
    for picture in someone.seen[1:]:
        np.testing.assert_array_equal(picture, someone.seen[0])


def test_closing_the_window_leaves(player, monkeypatch):
    import pygame

    someone = player({})
    original = someone.sleep

    def sleep(seconds):
        original(seconds)
        pygame.event.post(pygame.event.Event(pygame.QUIT))

    monkeypatch.setattr(play.time, "sleep", sleep)
    assert main([*QUICK]) == 0
    assert someone.frame == 1


def test_a_slow_painter_skips_pictures_and_not_time(player, monkeypatch):
    """Every picture takes 0.1 s, as five frames do."""
    someone = player({1: ["up"], 41: ["escape"]})
    clock = [0.0]
    monkeypatch.setattr(play.time, "perf_counter", lambda: clock[0])
    painted = []
    monkeypatch.setattr(
        play.registry, "make", slow_to_paint(play.registry.make, clock, painted)
    )
    waited = someone.sleep

    def sleep(seconds):
        clock[0] += seconds
        waited(seconds)

    monkeypatch.setattr(play.time, "sleep", sleep)
    assert main([*QUICK]) == 0
    # Forty frames of a fiftieth of a second, with a picture in every fifth.
    assert clock[0] == pytest.approx(40 / 50, abs=0.15)
    assert 7 <= len(painted) <= 10


def slow_to_paint(make, clock, painted):
    def slow(*arguments):
        env = make(*arguments)

        def paint(*arguments):
            clock[0] += 0.1
            painted.append(arguments)
            return env.paint(*arguments)

        return env._replace(paint=paint)

    return slow


@pytest.mark.parametrize(
    ("held", "continuous", "discrete"),
    [
        ([], (0, 0, 0), 0),
        (["left"], (-1, 0, 0), 2),
        (["right"], (1, 0, 0), 1),
        (["up"], (0, 1, 0), 3),
        (["down"], (0, 0, 0.8), 4),
        (["left", "right", "up"], (0, 1, 0), 1),
        (["left", "up", "space"], (-1, 1, 0), 2),
        (["left", "down"], (-1, 0, 0.8), 4),
    ],
)
def test_keys_mean_what_they_mean_in_gymnasium(held, continuous, discrete):
    box = registry.make(compose(QUICK).env, [17]).spec.action
    action = play._action(set(held), box)
    np.testing.assert_array_equal(action, np.array(continuous, "f4"))
    assert play._action(set(held), Discrete(5)) == discrete


def test_choices_can_be_played_too(player, capsys):
    player({3: ["up"], 30: ["escape"]})
    choices = ("env.continuous=false",)
    assert main([*QUICK, *choices, "env.time_limit=20"]) == 0
    total = rollout(choices, 17, 20, lambda world, state, t: np.int32(3))
    assert capsys.readouterr().out == f"Track 17: {total:.1f} points in 0.4 s\n"


@pytest.mark.parametrize("continuous", ["true", "false"])
def test_without_a_screen_the_scripted_driver_is_filmed(here, capsys, continuous):
    settings = ("env.time_limit=40", "root=films", f"env.continuous={continuous}")
    assert main([*QUICK, *settings]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.count("\n") == 1
    assert [str(path) for path in Path().rglob("*.*")] == ["films/driver-track-17.mp4"]
    assert "films/driver-track-17.mp4" in out and "DISPLAY" in out
    steered = jax.jit(drive)
    total = rollout((), 17, 40, lambda world, state, t: steered(world.roads, state))
    assert f"return {total:.1f} in 40 frames" in out
    facts, pictures = read(Path("films/driver-track-17.mp4"))
    assert "50 fps" in facts
    # A picture of every frame, and of the state that the last one leads to; beside the
    # picture of 5 : 4 the panel.
    assert pictures.shape == (41, 120, 150 + 60, 3)


def test_several_tracks_can_be_filmed(here, capsys):
    assert main([*QUICK, "env.time_limit=2", "episodes=2"]) == 0
    assert {path.name for path in Path("runs").iterdir()} == {
        *("driver-track-17.mp4", "driver-track-18.mp4")
    }


def test_a_window_that_cannot_open_is_a_film_too(here, monkeypatch, capsys):
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    assert main([*QUICK, "env.time_limit=2"]) == 0
    assert Path("runs/driver-track-17.mp4").exists()
    assert "no-such-driver" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (("env=Probe",), "CarRacing only, not env=Probe"),
        (("env=CarRacing", "height=121"), "height is 121"),
    ],
)
def test_mistakes_are_one_sentence(here, probe, capsys, settings, part):
    assert main(["mode=play", *settings]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert part in err


def test_it_takes_no_run():
    with pytest.raises(ValueError, match="mode=record run=runs/some"):
        Config(mode=Mode.play, run="runs/some")
