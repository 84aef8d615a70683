"""Agents over HTTP, and what the cache holds for a prompt."""
