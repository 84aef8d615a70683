"""What the engine has done since it started: plain sums.

Written by the engine thread, read by any: each is one integer, and no two need to agree.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Sums since the engine started."""

    steps: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    expired: int = 0
    """Requests that waited too long for a row."""
    prompt_tokens: int = 0
    """Tokens of the prompts of the requests that got to their first token."""
    restored_tokens: int = 0
    """Prompt tokens that came from the pool."""
    prefilled_tokens: int = 0
    """Prompt tokens that were computed."""
    decoded_tokens: int = 0
    """Sampled tokens."""
    decode_steps: int = 0
    """Steps that decoded: each sampled a token for every row that was decoding."""
    decoded_rows: int = 0
    """Rows of those steps: by their number, how large the batch was."""
    decode_seconds: float = 0.0
    """How long those steps took, with what else was done in them."""
    seal_seconds: float = 0.0
    """How long encoding and writing blocks took, which is time of the engine's thread."""
    seal_errors: int = 0
    """Requests whose blocks could not be kept from some point on."""
    checkpoints: int = 0
    """Recurrent states that were kept."""
    checkpoint_misses: int = 0
    """Recurrent states that were there and turned out to be of no use."""
    book_errors: int = 0
    """Requests that the agents' book could not note."""
    slab_losses: int = 0
    """Times that the running batch failed as a whole."""

    def note_decode(self, rows: int, seconds: float) -> None:
        """A step decoded so many rows."""
        self.decode_steps += 1
        self.decoded_rows += rows
        self.decode_seconds += seconds
