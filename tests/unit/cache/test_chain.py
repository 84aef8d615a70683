"""Noted chains in a real pool: what is left of them, pins, dropping."""

from __future__ import annotations

import pytest
from slabs import BLOCK, Slab, count_up, ids, keep, open_pool, restore, truth

from dovecote_cache import Chain, ChainStats, Pool, PoolExhausted, PoolIOError


def note(pool: Pool, tokens: object) -> Chain:
    """Keep the tokens, as an agent's turn does, and note their chain."""
    array = ids(*tokens)  # type: ignore[misc]
    slab = Slab(rows=1)
    slab.compute(array)
    with pool.lease(len(array)) as lease, slab.planes() as planes:
        lease.match(array[:-1])
        lease.seal_short(array[lease.whole_tokens :], planes)
        return lease.chain


def test_a_noted_chain_is_found_again(pool: Pool) -> None:
    """All of it at first, then the beginning that eviction has left."""
    chain = note(pool, count_up(10))
    assert (chain.blocks, chain.tokens) == (3, 10)
    assert pool.look(chain) == ChainStats(tokens=10, blocks=3, own_blocks=3, pinned_blocks=0)
    keep(pool, count_up(24, start=500))
    assert pool.look(chain) == ChainStats(tokens=8, blocks=2, own_blocks=2, pinned_blocks=0)


def test_what_two_chains_have_in_common_is_neither_s_own(pool: Pool) -> None:
    """Dropping one leaves the other's blocks, and its K and V, as they were."""
    tokens = count_up(10)
    one, two = note(pool, tokens), note(pool, [*tokens[:8], 7, 8])
    assert one.blocks_in_common(two) == two.blocks_in_common(one) == 2
    assert pool.look(one).own_blocks == 1
    assert pool.drop(one) == 1
    valid, content = restore(pool, ids(*tokens[:8], 7, 8))
    assert (valid, content) == (10, truth([*tokens[:8], 7, 8]))
    assert pool.drop(two, shared_blocks=1) == 2
    assert pool.stats().cached == 1


def test_a_pinned_chain_is_evicted_last(pool: Pool) -> None:
    """It outlives younger chains, and gives way when nothing else is left."""
    chain = note(pool, count_up(16))
    assert pool.pin([chain], limit_frames=4) == 4
    for n in range(5):
        keep(pool, count_up(16, start=1000 * (n + 1)))
        pool.check()
    assert pool.look(chain) == ChainStats(tokens=16, blocks=4, own_blocks=4, pinned_blocks=4)
    assert pool.stats().pinned == 4
    assert keep(pool, count_up(32, start=9000)) == 0
    assert pool.look(chain).blocks == 0


def test_pins_are_bounded_and_replaced_as_a_whole(pool: Pool) -> None:
    """The answer says what it would have taken; the next call starts from nothing."""
    chains = [note(pool, count_up(12)), note(pool, count_up(12, start=500))]
    assert pool.pin(chains, limit_frames=4) == 6
    assert [pool.look(chain).pinned_blocks for chain in chains] == [3, 1]
    assert pool.pin([], limit_frames=4) == 0
    assert pool.stats().pinned == 0


def test_blocks_move_between_pools_as_they_are_stored(pool: Pool) -> None:
    """What `read` gives in one pool, `write` makes a hit in another with the same bytes."""
    chain = note(pool, count_up(10))
    with open_pool(None) as other:
        with pool.lease(0) as source, other.lease(10) as target:
            assert source.hold(chain) == 10
            for block in range(chain.blocks):
                target.write(*source.read(block))
            assert target.tokens == 10
        assert restore(other, count_up(10)) == (10, truth(count_up(10)))
        other.check()


def test_a_chain_can_only_be_held_where_there_is_room(pool: Pool) -> None:
    """Promises of others come first, and a refused hold pins nothing."""
    chain = note(pool, count_up(32))
    with pool.lease(8 * BLOCK), pool.lease(0) as lease:
        with pytest.raises(PoolExhausted):
            lease.hold(chain)
        assert pool.stats().leased == 0


def test_a_block_of_another_length_is_refused(pool: Pool) -> None:
    with pool.lease(4) as lease, pytest.raises(ValueError, match="a frame has"):
        lease.write(ids(1), b"short")


def test_keys_and_tokens_must_fit_each_other(pool: Pool) -> None:
    with pytest.raises(ValueError, match="contract"):
        pool.look(Chain(b"k" * 16, 5))
    assert pool.look(Chain(b"", 0)) == ChainStats(0, 0, 0, 0)
    assert pool.look(Chain(b"k" * 32, 5)).blocks == 0


def test_a_damaged_block_cannot_be_read(pool: Pool) -> None:
    """P1: it is dropped and counted, and the lease ends before it."""
    chain = note(pool, count_up(10))
    assert pool.path is not None
    with pool.path.open("r+b") as file:
        content = file.read()
        at = len(content) - 8 * pool.frame_bytes + pool.frame_bytes + 5
        file.seek(at)
        file.write(bytes([content[at] ^ 1]))
    with pool.lease(0) as lease:
        lease.hold(chain)
        lease.read(0)
        with pytest.raises(PoolIOError) as raised:
            lease.read(1)
        assert raised.value.errno == 0
        assert lease.tokens == BLOCK
    assert pool.stats().miss_checksum == 1
