"""What is loaded: a model by name or path, and what the engine has to know of it."""
