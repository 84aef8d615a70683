"""Anthropic's Messages API over the same engine: its bodies, errors and events.

Does not know how answers are computed: a body becomes a chat completion's.
"""
