"""OpenAI's Responses API over the same engine: its bodies, events, and memory of conversations.

Does not know how answers are computed: a body becomes a chat completion's.
"""
