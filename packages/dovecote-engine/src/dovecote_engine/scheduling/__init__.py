"""Who runs when: admission, turns, plans, and what comes of a step."""
