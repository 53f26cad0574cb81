"""CarRacing: Gymnasium's CarRacing-v3 in JAX; `env.make` is the way in."""
