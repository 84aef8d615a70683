"""What operators ask: health, metrics, logs, the overview, administrative calls."""
