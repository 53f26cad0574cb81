"""Behaviour and learning: policies, rollouts, losses, evolution strategies."""
