"""Runs: settings, training, evaluation, videos; everything that has side effects."""
