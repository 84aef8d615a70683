"""The engine behind the event loop: its thread, its events, its exchange for another."""
