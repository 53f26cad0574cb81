"""Worlds: JAX simulators, adapters for others, transforms and distractions."""
