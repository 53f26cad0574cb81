"""PPO of Stable-Baselines3 on the vector environment, in about a minute on a CPU.

    pip install --editable ".[sb3]"
    python docs/examples/train_with_stable_baselines3.py

`as_vec_env` is all that Stable-Baselines3 needs; the rest is an ordinary training run.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv


def step(
    envs: VectorEnv, actions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """A step as Stable-Baselines3 wants its result.

    Args:
      envs: B worlds in the autoreset mode "SameStep".
      actions: one for each.

    Returns:
      Observations [B, ...], rewards f32[B], whether an episode ended, bool[B], and an
      info for each world. Where an episode ended, the observation is of the next one,
      and the info has the old one's last as `terminal_observation`.
    """
    observations, rewards, terminated, truncated, infos = envs.step(actions)
    ended = terminated | truncated
    listed: list[dict[str, Any]] = [
        {"TimeLimit.truncated": bool(t)} for t in truncated & ~terminated
    ]
    for i in np.flatnonzero(ended):
        listed[i]["terminal_observation"] = infos["final_obs"][i]
        final = infos["final_info"]
        if final.get("_lap_finished", np.zeros_like(ended))[i]:
            listed[i]["lap_finished"] = bool(final["lap_finished"][i])
    # A copy, as PyTorch warns of arrays that it may not write to.
    return observations.copy(), rewards.astype(np.float32), ended, listed


def as_vec_env(envs: VectorEnv):
    """A Gymnasium vector environment as Stable-Baselines3's `VecEnv`.

    Args:
      envs: in the autoreset mode "SameStep".

    Raises:
      ValueError: it is in another mode.
    """
    from stable_baselines3.common.vec_env import VecEnv

    mode = envs.metadata["autoreset_mode"]
    if mode is not AutoresetMode.SAME_STEP:
        raise ValueError(
            f"the autoreset mode is {mode.value!r}; Stable-Baselines3 needs 'SameStep'"
        )

    class Adapter(VecEnv):
        def __init__(self):
            self.actions = np.empty(0)
            super().__init__(
                envs.num_envs, envs.single_observation_space, envs.single_action_space
            )

        def reset(self):
            # World i takes the first seed plus i, as Stable-Baselines3 has it too.
            observations, _ = envs.reset(seed=self._seeds[0])
            self._reset_seeds()
            self._reset_options()
            return observations.copy()

        def step_async(self, actions):
            self.actions = actions

        def step_wait(self):
            return step(envs, self.actions)

        def close(self):
            envs.close()

        def get_images(self):
            return envs.render()

        def get_attr(self, attr_name, indices=None):
            return [getattr(envs, attr_name) for _ in self._get_indices(indices)]

        def set_attr(self, attr_name, value, indices=None):
            raise NotImplementedError("the worlds are one object; make another one")

        def env_method(self, method_name, *args, indices=None, **kwargs):
            raise NotImplementedError("the worlds are one object, with no methods each")

        def env_is_wrapped(self, wrapper_class, indices=None):
            return [False for _ in self._get_indices(indices)]

    return Adapter()


def run(description: str, agent: Callable[..., Any], steps: int) -> None:
    """Trains, and prints the mean return before and after.

    Args:
      description: what --help says first.
      agent: (worlds, seed) -> an agent of Stable-Baselines3's interface.
      steps: frames to train for, unless --steps says otherwise.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=steps, help="frames to train for")
    parser.add_argument("--worlds", type=int, default=16, help="worlds in lockstep")
    parser.add_argument("--tracks", type=int, default=32, help="tracks to train on")
    parser.add_argument("--size", type=int, default=48, help="pixels along a side")
    parser.add_argument("--length", type=int, default=200, help="frames of an episode")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    from stable_baselines3.common.evaluation import evaluate_policy

    def make():
        return as_vec_env(
            gymnasium.make_vec(
                "envs:iap/CarRacing-v0",
                num_envs=arguments.worlds,
                tracks=arguments.tracks,
                max_episode_steps=arguments.length,
                autoreset_mode="SameStep",
                continuous=False,
                size=arguments.size,
            )
        )

    def score() -> str:
        # Tracks 1000 and up are not among those of training.
        held_out.seed(1000)
        mean, deviation = evaluate_policy(
            model, held_out, n_eval_episodes=arguments.worlds, warn=False
        )
        return f"{mean:.1f} +- {deviation:.1f}"

    training, held_out = make(), make()
    model = agent(training, arguments.seed)
    print(f"return of {arguments.length} frames, mean and deviation over tracks")
    print("before", score(), flush=True)
    start = time.perf_counter()
    model.learn(arguments.steps)
    print(f"trained for {arguments.steps} frames: {time.perf_counter() - start:.0f} s")
    print("after", score())


def main() -> None:
    """Trains Stable-Baselines3's own PPO."""
    from stable_baselines3 import PPO

    def agent(worlds, seed: int) -> PPO:
        return PPO(
            "CnnPolicy",
            worlds,
            n_steps=64,
            batch_size=256,
            n_epochs=4,
            seed=seed,
            device="cpu",
        )

    run((__doc__ or "").splitlines()[0], agent, steps=8192)


if __name__ == "__main__":
    main()
