"""A world of one's own, as `docs/worlds.md` shows it; no test, but used by some."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Chase(gymnasium.Env):
    observation_space = spaces.Box(0, 255, (24, 24, 3), np.uint8)
    action_space = spaces.Box(-1.0, 1.0, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(6, 18, 2)
        return self.picture(), {}

    def step(self, action):
        self.place = np.clip(self.place + action, 2, 21)
        reward = 1 - np.abs(self.place - 12).max() / 12
        return self.picture(), reward, False, False, {}

    def picture(self):
        rows, columns = np.ogrid[:24, :24]
        near = np.hypot(rows - self.place[0], columns - self.place[1]) < 3
        return np.repeat(np.uint8(255 * near)[..., None], 3, axis=2)


gymnasium.register("Chase-v0", Chase, max_episode_steps=20)
gymnasium.register("Chase-v1", Chase, max_episode_steps=5)
