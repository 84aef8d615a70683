"""Random requests, crashes and damage against a model that is a set of token sequences.

Data is never wrong: whatever the pool hands out is bit for bit what these tokens must have. Beyond
that the model knows an upper bound, the sequences that were ever sealed, and a lower one, those
that were sealed after the pool last had to give something up.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from examples import examples
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from slabs import BLOCK, Slab, open_pool, restore, truth

from dovecote_cache import Lease, Pool, PoolExhausted

CAPACITY = 32
SALTS = (b"", b"tenant")
HEADER_BYTES = 4096

# A common beginning and few ids, so that prefixes meet, and part inside blocks.
BEGINNING = (0, 1, 2, 2, 1, 0, 1, 2, 0, 0, 1, 1)
some_tokens = st.lists(st.integers(0, 2), max_size=7)
tokens_of_prompts = st.builds(
    lambda common, rest: (*BEGINNING[:common], *rest),
    st.integers(1, len(BEGINNING)),
    some_tokens,
)
salts = st.sampled_from(SALTS)

Tokens = tuple[int, ...]


@dataclass
class Request:
    """A lease in use. `tokens` are those in its row, of which `lease.tokens` are kept."""

    lease: Lease
    salt: bytes
    tokens: Tokens
    reserved_tokens: int
    slab: Slab = field(default_factory=lambda: Slab(rows=1, capacity=CAPACITY))


def shared(one: Tokens, other: Tokens) -> int:
    """How many tokens two sequences have in common from the start."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


class PoolAgainstModel(RuleBasedStateMachine):
    """A small pool file, up to three requests at once, and what may be found in it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "a.pool"
        self.pool: Pool = open_pool(self.path, frames=8)
        self.frames = 8
        self.requests: list[Request] = []
        self.ever: set[tuple[bytes, Tokens]] = set()
        self.certain: set[tuple[bytes, Tokens]] = set()
        self.given_up = 0
        self.damaged = False

    def teardown(self) -> None:
        """Give the file back, whatever the rules left open."""
        self.release_all()
        self.pool.close()
        self.directory.cleanup()

    # ---- rules

    @rule(tokens=tokens_of_prompts, salt=salts, more=st.integers(0, 9))
    @precondition(lambda self: len(self.requests) < 3)
    def begin(self, tokens: Tokens, salt: bytes, more: int) -> None:
        """A request starts: what is cached comes into its row, exactly."""
        reserved = len(tokens) + more
        if not self.pool.can_reserve(reserved):
            with pytest.raises(PoolExhausted):
                self.pool.lease(reserved)
            return
        request = Request(self.pool.lease(reserved), salt, tokens, reserved)
        self.requests.append(request)
        matched = request.lease.match(np.array(tokens, np.uint32), salt)
        self.check_bounds(tokens, salt, matched)
        self.check_row(request)

    @rule(pick=st.integers(0, 2))
    @precondition(lambda self: self.requests)
    def decode_again(self, pick: int) -> None:
        """P3, P5: what a lease has pinned stays what it is, whatever happened meanwhile."""
        self.check_row(self.requests[pick % len(self.requests)])

    @rule(pick=st.integers(0, 2), more=some_tokens)
    @precondition(lambda self: self.requests)
    def seal(self, pick: int, more: list[int]) -> None:
        """A row grows, and its whole blocks are kept."""
        request = self.requests[pick % len(self.requests)]
        request.tokens = (*request.tokens, *more)[: request.reserved_tokens]
        self.keep(request, short=False)

    @rule(pick=st.integers(0, 2))
    @precondition(lambda self: self.requests)
    def finish(self, pick: int) -> None:
        """A request ends, and all of its row is kept."""
        request = self.requests.pop(pick % len(self.requests))
        self.keep(request, short=True)
        request.lease.release()

    @rule(pick=st.integers(0, 2))
    @precondition(lambda self: self.requests)
    def cancel(self, pick: int) -> None:
        """A request is dropped as it stands."""
        self.requests.pop(pick % len(self.requests)).lease.release()

    @rule(tokens=tokens_of_prompts, salt=salts)
    def probe(self, tokens: Tokens, salt: bytes) -> None:
        """A prompt is looked up and decoded."""
        valid, found = restore(self.pool, np.array(tokens, np.uint32), salt)
        assert found == truth(tokens[:valid])
        self.check_upper_bound(tokens, salt, valid)

    @rule(frames=st.sampled_from((5, 8, 8, 13)))
    @precondition(lambda self: self.pool.stats().cached >= 3)
    def reopen(self, frames: int) -> None:
        """The server restarts, perhaps with a pool of another size."""
        self.release_all()
        self.pool.close()
        self.pool = open_pool(self.path, frames=frames)
        assert self.pool.opened.how == ("reused" if frames == self.frames else "resized")
        self.frames = frames
        self.given_up = 0
        if self.pool.opened.lost_blocks:
            self.certain.clear()

    @rule(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    @precondition(lambda self: self.pool.stats().cached >= 3)
    def reopen_damaged(self, place: float, bit: int) -> None:
        """A bit of a record or a frame flips while the server is down."""
        self.release_all()
        self.pool.close()
        content = np.fromfile(self.path, np.uint8)
        in_use = HEADER_BYTES + np.flatnonzero(content[HEADER_BYTES:])
        content[in_use[int(place * len(in_use))]] ^= 1 << bit
        self.path.write_bytes(content.tobytes())
        self.pool = open_pool(self.path, frames=self.frames)
        self.given_up = 0
        self.certain.clear()
        self.damaged = True

    @rule()
    def sync(self) -> None:
        """Writing to disk changes nothing but where short blocks are: in memory if leased."""
        before = self.pool.stats()
        self.pool.sync()
        after = self.pool.stats()
        assert after.held_bytes <= min(before.held_bytes, after.leased * after.frame_bytes)
        moved = {"held_bytes": after.held_bytes, "bytes_written": after.bytes_written}
        assert after == replace(before, **moved)

    # ---- invariants

    @invariant()
    def frames_are_conserved(self) -> None:
        """P4, and every link of the index."""
        self.pool.check()
        stats = self.pool.stats()
        assert stats.leased + stats.cached + stats.free == stats.frames == self.frames
        assert stats.promised <= stats.cached + stats.free
        assert stats.leases == len(self.requests)

    @invariant()
    def nothing_is_given_up_in_silence(self) -> None:
        """Only a full pool or damage costs a block, and either is counted."""
        stats = self.pool.stats()
        misses = stats.miss_checksum + stats.miss_orphan + stats.miss_io
        assert self.damaged or not misses
        if stats.evicted_blocks + misses > self.given_up:
            self.given_up = stats.evicted_blocks + misses
            self.certain.clear()

    # ---- what the rules share

    def keep(self, request: Request, *, short: bool) -> None:
        """Seal what the row holds. The promise covers it unless damage took frames away."""
        request.slab.compute(request.tokens)
        rest = np.array(request.tokens, np.uint32)[request.lease.whole_tokens :]
        seal = request.lease.seal_short if short else request.lease.seal
        with request.slab.planes() as planes:
            try:
                kept = seal(rest, planes)
            except PoolExhausted:
                assert self.damaged
                kept = request.lease.whole_tokens
        self.nothing_is_given_up_in_silence()
        wanted = len(request.tokens) if short else len(request.tokens) // BLOCK * BLOCK
        assert self.damaged or kept >= wanted
        for salted in (self.ever, self.certain):
            salted.add((request.salt, request.tokens[:kept]))

    def check_row(self, request: Request) -> None:
        """Decode what the lease has matched into its row, and compare."""
        lease = request.lease
        blocks = self.pool.geometry.blocks(lease.tokens)
        with request.slab.planes() as planes:
            valid = lease.decode(planes, 0, blocks)
        self.nothing_is_given_up_in_silence()
        assert valid == lease.tokens
        kept = request.tokens[:valid]
        assert request.slab.bytes(valid) == truth(kept)

    def check_bounds(self, tokens: Tokens, salt: bytes, matched: int) -> None:
        """All that is certain is found, unless every frame is spoken for; nothing else is."""
        self.check_upper_bound(tokens, salt, matched)
        spare = self.pool.stats().available > 0
        assert not spare or matched >= self.longest(self.certain, tokens, salt)

    def check_upper_bound(self, tokens: Tokens, salt: bytes, matched: int) -> None:
        """Nothing is found that was not sealed under this salt."""
        assert matched <= self.longest(self.ever, tokens, salt)

    @staticmethod
    def longest(chains: set[tuple[bytes, Tokens]], tokens: Tokens, salt: bytes) -> int:
        """The longest prefix that the prompt has in common with one of the chains."""
        found = (shared(chain, tokens) for salted, chain in chains if salted == salt)
        return max(found, default=0)

    def release_all(self) -> None:
        """End all requests as they stand."""
        for request in self.requests:
            request.lease.release()
        self.requests.clear()


PoolAgainstModel.TestCase.settings = settings(
    max_examples=examples(60),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
test_a_pool_never_differs_from_the_model = PoolAgainstModel.TestCase
