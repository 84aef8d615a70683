"""Agents by name: what they hold, share and keep, and where their cached tokens came from."""
