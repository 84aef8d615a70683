"""Between text and tokens: chat templates, streams, turns that come back, tool calls."""
