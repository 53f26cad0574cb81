"""Worlds of ours for others' libraries, and others' worlds for ours."""
