"""Remembers the tokens of answers, for when they come back as the assistant's turns of a prompt.

A text has many tokenisations, and a model does not always sample the one that a tokenizer would
choose. A turn that comes back is therefore written with the tokens that were sampled, so that the
prompt is the sequence whose K and V are cached. What is remembered never decides what a prompt
says: it replaces tokens by others of exactly the same text, or is not used.

In memory only, bounded: after a restart prompts are tokenised as by any other server, and what may
be lost is cache hits from the first turn on that was sampled in another tokenisation.

Does not know templates or tokenizers. Any thread.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

__all__ = ["SampledTurn", "SampledTurns"]

_MOST_TURNS = 8192
_MOST_TOKENS = 4 << 20
"""16 MiB of token ids."""


@dataclass(frozen=True, slots=True)
class SampledTurn:
    """An answer: its tokens without the one that ended it, and what was shown of it.

    `call_ids` of its calls, in order.
    """

    tokens: Sequence[int]
    content: str
    reasoning: str = ""
    call_ids: tuple[str, ...] = ()


class SampledTurns:
    """The newest turns, those of each salt apart."""

    def __init__(self, most_turns: int = _MOST_TURNS, most_tokens: int = _MOST_TOKENS) -> None:
        self._most_turns = most_turns
        self._most_tokens = most_tokens
        self._turns: OrderedDict[bytes, SampledTurn] = OrderedDict()
        self._tokens = 0
        self._lock = threading.Lock()

    def remember(self, turn: SampledTurn, salt: bytes) -> None:
        """Keeps a turn, if anything can lead back to it; the oldest ones make room."""
        if not turn.tokens or not (turn.call_ids or turn.content):
            return
        key = _key(turn.content, turn.call_ids, salt)
        kept = SampledTurn(array("I", turn.tokens), turn.content, turn.reasoning, turn.call_ids)
        with self._lock:
            self._forget(key)
            self._turns[key] = kept
            self._tokens += len(kept.tokens)
            while len(self._turns) > self._most_turns or self._tokens > self._most_tokens:
                self._forget(next(iter(self._turns)))

    def find(self, message: Mapping[str, object], salt: bytes) -> SampledTurn | None:
        """The turn that an assistant's plain message may be: by the ids of its calls, or its text.

        Whether the message says what the turn says is for the caller to find out.
        """
        key = _key(str(message["content"]), _call_ids(message), salt)
        with self._lock:
            turn = self._turns.get(key)
            if turn is not None:
                self._turns.move_to_end(key)
            return turn

    def _forget(self, key: bytes) -> None:
        turn = self._turns.pop(key, None)
        self._tokens -= 0 if turn is None else len(turn.tokens)


def _call_ids(message: Mapping[str, object]) -> tuple[str, ...]:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return ()
    return tuple(str(call.get("id")) for call in calls if isinstance(call, Mapping))


def _key(content: str, call_ids: tuple[str, ...], salt: bytes) -> bytes:
    digest = blake2b(digest_size=16, key=blake2b(salt, digest_size=32).digest())
    for part in call_ids or (content,):
        encoded = part.encode(errors="surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()
