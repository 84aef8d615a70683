"""The page for people, and its files."""
