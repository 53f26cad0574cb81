"""The encoder as a module of other frameworks, each imported by its own name only."""
