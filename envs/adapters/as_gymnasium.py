"""Ours for others: CarRacing as an environment and a vector environment of Gymnasium.

`envs/__init__.py` registers both under one name:

    gymnasium.make("envs:iap/CarRacing-v0")
    gymnasium.make_vec("envs:iap/CarRacing-v0", num_envs=64)
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from envs.adapters import compiled
from envs.car_racing import cache
from envs.car_racing.cache import Pool
from envs.car_racing.car import FPS
from envs.car_racing.env import LOST, MAX_STEPS, World
from envs.core import Discrete, Spec, State

HEIGHT, WIDTH = 400, 600
"""Pixels of `render`, as many as of CarRacing-v3's."""
POOL_START = 100000
"""Gymnasium seed of the first track of a vector environment's pool."""
METADATA = {"render_modes": ["rgb_array"], "render_fps": FPS}


class CarRacing(gymnasium.Env[np.ndarray, np.ndarray | int]):
    """CarRacing-v3's game in JAX, as `envs.car_racing.env.make` describes it.

    `reset(seed=s)` gives the track of CarRacing-v3's `reset(seed=s)`. `reset()` draws a
    seed below 2**31 from `np_random` and gives that seed's track; CarRacing-v3 goes on
    with its generator instead, so that its second track is another one. A track is made
    in memory when it is first asked for, and the last few are remembered.

    The environment itself never truncates, as CarRacing-v3 does not: the time limit is
    `gymnasium.make`'s. `info["lap_finished"]` says, when an episode terminates, whether
    by a lap (True) or by leaving the field (False).
    """

    metadata = METADATA

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        domain_randomize: bool = False,
        **settings: Any,
    ):
        """Makes the environment; a track is made by `reset`.

        Args:
          render_mode: "rgb_array", for `render` to return u8[400, 600, 3]; or None.
          domain_randomize: as in CarRacing-v3: every reset draws the colours of road
            and grass, unless `options={"randomize": False}` keeps those of before.
          **settings: those of `envs.car_racing.env.make`: `size`, `color`,
            `continuous`, `lap_rule`, `lap_complete_percent` and others.

        Raises:
          ValueError: an argument has a value that is not allowed.
          TypeError: there is no such setting.
        """
        _check_render_mode(render_mode)
        self.render_mode = render_mode
        self._domain_randomize = domain_randomize
        self._template = compiled.template(**settings)
        self._play = compiled.single(**settings)
        self.observation_space, self.action_space = _spaces(self._template.spec)
        self._world: World | None = None
        self._state: State = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins an episode.

        Args:
          seed: of the track, a non-negative int; None to draw one from `np_random`.
          options: `{"randomize": False}` keeps the colours, see the constructor.

        Returns:
          The observation u8[size, size, 3 or 1], and {}.

        Raises:
          gymnasium.error.Error: `seed` is negative or not an int.
          ValueError: there is no room for this seed's track.
        """
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(1 << 31))
        # Gymnasium then draws no colours, and so comes to the usual track of the seed.
        keep = self._domain_randomize and not (options or {}).get("randomize", True)
        pool = compiled.track(seed, self._domain_randomize and not keep)
        world = compiled.world(self._template, pool)
        state, observation = self._play.begin(world, compiled.key_seeds([seed])[0])
        if keep and self._state is not None:
            state = state._replace(ground=self._state.ground)
            observation = self._play.observe(world, state)
        self._world, self._state = world, state
        return np.array(observation), {}

    def step(
        self, action: np.ndarray | int
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Plays one fiftieth of a second.

        Args:
          action: f32[3], steer, gas and brake, clipped to the action space; or a choice
            in 0 to 4 where `continuous` is False.

        Returns:
          The observation, the reward, whether the world ended the episode, False, and
          `lap_finished` where it did.

        Raises:
          ValueError: the action has another shape, or is not a number.
          gymnasium.error.InvalidAction: it is not one of the choices.
          gymnasium.error.ResetNeeded: no episode has begun.
        """
        if self._state is None:
            raise ResetNeeded("step was called before an episode began; call reset()")
        checked = _checked(action, self._template.spec, ())
        self._state, observation, reward, terminated = self._play.advance(
            self._world, self._state, checked
        )
        gained, over = float(reward), bool(terminated)
        return np.array(observation), gained, over, False, _ending(gained, over)

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The present picture, u8[400, 600, 3], large and smooth.

        Raises:
          gymnasium.error.ResetNeeded: no episode has begun.
        """
        if _warned(self.render_mode):
            return None
        if self._state is None:
            raise ResetNeeded("render was called before an episode began; call reset()")
        state = jax.device_get(self._state)
        return self._template.paint(self._world, state, HEIGHT, WIDTH)


class CarRacingVector(gymnasium.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many worlds of CarRacing in lockstep: one compiled step, every world drawn once.

    After `reset(seed=s)` world i drives on the track of CarRacing-v3's
    `reset(seed=s + i)`, and every later episode on one of a pool, drawn by `np_random`,
    which `s` has seeded. After `reset()` the first tracks are drawn from the pool too.
    The pool holds the tracks of Gymnasium seeds 100000 and up, made once and kept on
    disk; the tracks of a seeded reset are made in memory, about 1.1 MB each.

    Observations are what JAX returns, read-only; on a CPU they are not even copied.
    `info` is in Gymnasium's vector format, with `lap_finished` as in `CarRacing`.
    """

    metadata: dict[str, Any] = METADATA

    def __init__(
        self,
        num_envs: int = 1,
        *,
        tracks: int = 256,
        max_episode_steps: int = MAX_STEPS,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        domain_randomize: bool = False,
        **settings: Any,
    ):
        """Makes the environment; tracks are made or loaded by `reset`.

        Args:
          num_envs: worlds.
          tracks: how many tracks the pool has.
          max_episode_steps: steps after which an episode is truncated; -1 for never, as
            in `gymnasium.make`.
          autoreset_mode: when a world whose episode has ended begins the next one:
            "NextStep", "SameStep" (with `final_obs` and `final_info`), or "Disabled",
            where `reset(options={"reset_mask": bool[num_envs]})` begins them.
          render_mode: "rgb_array" or None, as in `CarRacing`.
          domain_randomize: whether each track has colours of its own; `options` cannot
            keep them.
          **settings: as in `CarRacing`.

        Raises:
          ValueError: an argument has a value that is not allowed.
          TypeError: there is no such setting.
        """
        if tracks < 1:
            raise ValueError(f"tracks is {tracks}; it must be at least 1")
        if max_episode_steps < 1 and max_episode_steps != -1:
            raise ValueError(
                f"max_episode_steps is {max_episode_steps}; it must be at least 1, or "
                "-1 for no limit"
            )
        if autoreset_mode not in {mode for m in AutoresetMode for mode in (m, m.value)}:
            raise ValueError(
                f"autoreset_mode is {autoreset_mode!r}; it must be one of "
                f"{[mode.value for mode in AutoresetMode]}"
            )
        _check_render_mode(render_mode)
        self._mode = AutoresetMode(autoreset_mode)
        self.metadata = {**METADATA, "autoreset_mode": self._mode}
        self.render_mode = render_mode
        self.num_envs = num_envs
        self._tracks = tracks
        self._limit = np.inf if max_episode_steps == -1 else max_episode_steps
        self._domain_randomize = domain_randomize
        self._template = compiled.template(**settings)
        self._play = compiled.many(num_envs, **settings)
        observations, actions = _spaces(self._template.spec)
        self.single_observation_space, self.single_action_space = observations, actions
        self.observation_space = batch_space(observations, num_envs)
        self.action_space = batch_space(actions, num_envs)
        self._world: World | None = None
        self._states: State = None
        # Seeds of the tracks that lie in the world behind the pool's.
        self._first: list[int] = []
        # Where each world begins next: a track of the world, and a seed of its key.
        self._levels = np.zeros(num_envs, np.int32)
        self._key_seeds = np.zeros(num_envs, np.uint32)
        self._elapsed = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, bool)

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins episodes.

        Args:
          seed: world i gets the track of seed + i, or of its own of num_envs seeds, the
            first of which seeds `np_random`; None to draw from the pool.
          options: `reset_mask`, bool[num_envs], the worlds that begin; all without it.

        Returns:
          The observations u8[num_envs, size, size, 3 or 1] of all worlds, and {}.

        Raises:
          gymnasium.error.Error: a seed is negative or not an int.
          ValueError: there are not num_envs seeds, the mask is not one, or there is no
            room for a seed's track.
          gymnasium.error.ResetNeeded: some worlds have not begun, nor begin now.
        """
        mask = self._mask(options)
        if seed is None:
            if self._world is None:
                self._load([])
            self._draw(mask)
        else:
            self._place(self._seeded(seed), mask)
        start = self._levels, self._key_seeds
        if mask.all():
            begun = self._play.begin(self._world, *start)
        else:
            begun = self._play.restart(self._world, self._states, mask, *start)
        self._states, observations = begun[0], np.asarray(begun[1])
        self._elapsed[mask], self._ended[mask] = 0, False
        # Only now, as JAX may still have read the arrays.
        self._draw(mask)
        return observations, {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Plays one fiftieth of a second in every world.

        Args:
          actions: f32[num_envs, 3] or integers [num_envs], as in `CarRacing`. Those of
            worlds that begin in this step are ignored.

        Returns:
          Observations u8[num_envs, ...], rewards f64[num_envs], terminations and
          truncations bool[num_envs], never both, and infos.

        Raises:
          ValueError: the actions have another shape or are not numbers, or, where
            autoreset is disabled, a world has not begun again.
          gymnasium.error.InvalidAction: one is not one of the choices.
          gymnasium.error.ResetNeeded: no episode has begun.
        """
        if self._states is None:
            raise ResetNeeded("step was called before an episode began; call reset()")
        checked = _checked(actions, self._template.spec, (self.num_envs,))
        same_step = self._mode is AutoresetMode.SAME_STEP
        if self._mode is AutoresetMode.DISABLED and self._ended.any():
            raise ValueError(
                f"worlds {np.flatnonzero(self._ended).tolist()} have ended, and "
                "autoreset is disabled; begin new episodes with "
                'reset(options={"reset_mask": mask})'
            )
        beginning = self._ended
        timeout = (self._elapsed + 1 >= self._limit) & ~beginning
        moved, self._states, observations, rewards, terminations = self._play.advance(
            self._world,
            self._states,
            checked,
            timeout if same_step else beginning,
            self._levels,
            self._key_seeds,
            same_step=same_step,
        )
        gained = np.where(beginning, 0.0, np.asarray(rewards, np.float64))
        terminated = np.asarray(terminations) & ~beginning
        truncated = timeout & ~terminated
        ended = terminated | truncated
        infos: dict[str, Any] = {}
        for i in np.flatnonzero(ended).tolist():
            info = _ending(float(gained[i]), bool(terminated[i]))
            if same_step:
                last = np.array(self._play.observe_one(self._world, moved, i))
                info = {"final_obs": last, "final_info": info}
            infos = self._add_info(infos, info, i)
        begun = ended if same_step else beginning
        self._elapsed = np.where(begun, 0, self._elapsed + 1)
        self._ended = np.zeros_like(ended) if same_step else ended
        self._draw(begun)
        return np.asarray(observations), gained, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The present picture of every world, u8[400, 600, 3] each.

        Raises:
          gymnasium.error.ResetNeeded: no episode has begun.
        """
        if _warned(self.render_mode):
            return None
        if self._states is None:
            raise ResetNeeded("render was called before an episode began; call reset()")
        states = jax.device_get(self._states)
        return tuple(
            self._template.paint(self._world, compiled.row(states, i), HEIGHT, WIDTH)
            for i in range(self.num_envs)
        )

    def _mask(self, options: dict[str, Any] | None) -> np.ndarray:
        """bool[num_envs]: the worlds that a reset begins."""
        if options is None or "reset_mask" not in options:
            return np.ones(self.num_envs, bool)
        mask = np.asarray(options["reset_mask"])
        if mask.dtype != bool or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask is {mask}; it must be {self.num_envs} booleans, one a "
                "world, and at least one of them True"
            )
        if self._states is None and not mask.all():
            raise ResetNeeded(
                "some worlds of reset_mask have not begun yet; call reset() first"
            )
        return mask

    def _draw(self, mask: np.ndarray) -> None:
        """Draws where the worlds of a mask begin next."""
        count = int(mask.sum())
        if count:
            self._levels[mask] = self.np_random.integers(self._tracks, size=count)
            self._key_seeds[mask] = self.np_random.integers(
                1 << 32, size=count, dtype=np.uint32
            )

    def _seeded(self, seed: int | Sequence[int]) -> list[int]:
        """A seed for every world, the first of which also seeds `np_random`."""
        if isinstance(seed, Sequence):
            if len(seed) != self.num_envs:
                raise ValueError(
                    f"{len(seed)} seeds were given for {self.num_envs} worlds; give "
                    "one a world, or one for all"
                )
            for one in seed:
                np_random(-1 if one is None else one)  # Gymnasium's check
            super().reset(seed=seed[0])
            return list(seed)
        super().reset(seed=seed)
        return [seed + i for i in range(self.num_envs)]

    def _place(self, seeds: list[int], mask: np.ndarray) -> None:
        """Lets the worlds of a mask begin next on tracks of their own."""
        # The other worlds may be driving on theirs.
        old = self._first or seeds
        wanted = [s if m else o for s, o, m in zip(seeds, old, mask, strict=True)]
        if wanted != self._first:
            self._load(wanted)
        self._levels[mask] = self._tracks + np.flatnonzero(mask)
        self._key_seeds[mask] = compiled.key_seeds(seeds)[mask]

    def _load(self, first: list[int]) -> None:
        """Makes the world of the pool's tracks and, behind them, those of `first`."""
        seeds = range(POOL_START, POOL_START + self._tracks)
        roads, canvas = cache.load_or_build(
            seeds, domain_randomize=self._domain_randomize
        )
        pool = Pool(roads, canvas.ground)
        if first:
            pool = compiled.joined(pool, cache.build(first, self._domain_randomize))
        self._world = compiled.world(self._template, pool)
        self._first = first


def _spaces(spec: Spec) -> tuple[spaces.Box, spaces.Space]:
    """The observation and the action space of one world."""
    observations = spaces.Box(0, 255, spec.image.shape, np.uint8)
    if isinstance(spec.action, Discrete):
        return observations, spaces.Discrete(spec.action.n)
    low, high = (np.array(b, np.float32) for b in (spec.action.low, spec.action.high))
    return observations, spaces.Box(low, high)


def _checked(action: Any, spec: Spec, batch: tuple[int, ...]) -> np.ndarray:
    """The action or actions as the game takes them, f32[*batch, 3] or i32[*batch]."""
    if isinstance(spec.action, Discrete):
        choice = np.asarray(action)
        fits = choice.shape == batch and np.issubdtype(choice.dtype, np.integer)
        if not fits or (choice < 0).any() or (choice >= spec.action.n).any():
            wanted = f"{batch[0]} integers" if batch else "an integer"
            raise InvalidAction(
                f"the action is {action!r}; it must be {wanted} from 0 to "
                f"{spec.action.n - 1}"
            )
        return choice.astype(np.int32)
    shape = (*batch, *spec.action.shape)
    try:
        strengths = np.asarray(action, np.float32)
    except (TypeError, ValueError):
        raise ValueError(
            f"the action is {action!r}; it must be numbers of shape {shape}"
        ) from None
    if strengths.shape != shape:
        raise ValueError(
            f"the action has the shape {strengths.shape}; it must have {shape}: steer, "
            "gas and brake"
        )
    if np.isnan(strengths).any():
        raise ValueError(
            f"the action is {strengths.tolist()}; NaN is not a strength of steer, gas "
            "or brake"
        )
    return strengths


def _ending(reward: float, terminated: bool) -> dict[str, Any]:
    """`info` as CarRacing-v3 has it; only what leaves the field is rewarded so."""
    return {"lap_finished": reward != LOST} if terminated else {}


def _check_render_mode(render_mode: str | None) -> None:
    if render_mode is not None and render_mode not in METADATA["render_modes"]:
        raise ValueError(
            f"render_mode is {render_mode!r}; it must be 'rgb_array' or None"
        )


def _warned(render_mode: str | None) -> bool:
    """Whether there is nothing to render, which Gymnasium's games warn of."""
    if render_mode is None:
        gymnasium.logger.warn(
            "render was called without a render mode; give render_mode='rgb_array' to "
            "gymnasium.make"
        )
    return render_mode is None
