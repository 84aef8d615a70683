"""The running batch: slab, caches, forwards, and what is kept of them in the pool."""
