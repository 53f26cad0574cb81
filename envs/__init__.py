"""Worlds: JAX simulators, adapters for others, transforms and distractions.

Importing it registers "iap/CarRacing-v0" with Gymnasium, and loads no simulator.
"""

from gymnasium.envs.registration import register

register(
    id="iap/CarRacing-v0",
    entry_point="envs.adapters.as_gymnasium:CarRacing",
    vector_entry_point="envs.adapters.as_gymnasium:CarRacingVector",
    # As CarRacing-v3.
    max_episode_steps=1000,
    reward_threshold=900,
)
