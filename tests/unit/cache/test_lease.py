from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from slabs import (
    BLOCK,
    FINGERPRINT,
    Slab,
    count_up,
    ids,
    keep,
    open_pool,
    restore,
    truth,
)

from dovecote_cache import (
    CodecName,
    DTypeName,
    Geometry,
    LayerShape,
    LeaseClosed,
    Pool,
    PoolExhausted,
    RowPlanes,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from dovecote_cache import Lease


def test_an_empty_pool_matches_nothing(pool: Pool) -> None:
    """A lease on an empty pool covers nothing, and its tip is zero."""
    with pool.lease(8) as lease:
        assert lease.match(count_up(8)) == 0
        assert (lease.tokens, lease.whole_tokens, lease.tip) == (0, 0, bytes(16))


def test_sealed_blocks_come_back_exactly(pool: Pool, slab: Slab) -> None:
    """What one request sealed another decodes into another row, bit for bit."""
    tokens = count_up(12)
    slab.compute(tokens, row=0)
    with pool.lease(12) as lease, slab.planes(0) as planes:
        assert lease.seal(tokens, planes) == 12
        tip = lease.tip
    with pool.lease(12) as lease, slab.planes(1) as planes:
        assert lease.match(tokens) == 12
        lease.prefetch()
        assert lease.decode(planes, 0, 3) == 12
        assert lease.tip == tip != bytes(16)
    assert slab.bytes(12, row=1) == truth(tokens)


def test_threads_decode_what_one_does(tmp_path: Path) -> None:
    """64 blocks of 68 KiB, more than enough for four threads to share."""
    geometry = Geometry((LayerShape(4, 128, 128),) * 2, "float32", 32)
    tokens = np.arange(64 * 32, dtype=np.uint32)
    shape = (1, 4, len(tokens), 128)
    random = np.random.default_rng(1)
    sides = [random.standard_normal(shape, np.float32) for _ in range(4)]
    restored = []
    with Pool.open(
        tmp_path / "wide.pool",
        geometry=geometry,
        codec="q8",
        fingerprint=FINGERPRINT,
        size_bytes=geometry.file_bytes("q8", len(tokens)),
    ) as pool:
        with pool.lease(len(tokens)) as lease, RowPlanes(sides[:2], sides[2:], 0) as planes:
            assert lease.seal(tokens, planes) == len(tokens)
        for threads in (1, 4, 99):
            pool.use_threads(threads)
            empty = [np.zeros(shape, np.float32) for _ in range(4)]
            with pool.lease(0) as lease, RowPlanes(empty[:2], empty[2:], 0) as planes:
                assert lease.match(tokens) == len(tokens)
                assert lease.decode(planes, 0, 64) == len(tokens)
            restored.append([side.tobytes() for side in empty])
    assert restored[0] == restored[1] == restored[2] != [bytes(sides[0].nbytes)] * 4


def test_decoding_touches_only_its_blocks_and_row(pool: Pool, slab: Slab) -> None:
    """Decoding block 1 leaves the other blocks and the other row as they were."""
    tokens = count_up(12)
    keep(pool, tokens)
    untouched = Slab()
    with pool.lease(0) as lease, slab.planes(1) as planes:
        lease.match(tokens)
        assert lease.decode(planes, 1, 2) == 12
    untouched.compute(tokens, row=1)
    for ours, whole in zip(
        [*slab.keys, *slab.values], [*untouched.keys, *untouched.values], strict=True
    ):
        assert not ours[0].any()
        assert not ours[1, :, :4].any()
        assert np.array_equal(ours[1, :, 4:8], whole[1, :, 4:8])
        assert not ours[1, :, 8:].any()


def test_seal_keeps_whole_blocks_only(pool: Pool, slab: Slab) -> None:
    """Tokens past the last whole block wait for the next call."""
    tokens = count_up(10)
    slab.compute(tokens)
    with pool.lease(10) as lease, slab.planes() as planes:
        assert lease.seal(tokens[:7], planes) == lease.tokens == 4
        assert lease.seal(tokens[4:], planes) == lease.whole_tokens == 8
        assert lease.seal(tokens[8:], planes) == 8


def test_a_short_block_keeps_the_rest_and_ends_the_chain(pool: Pool, slab: Slab) -> None:
    """After `seal_short` all tokens are covered and nothing more can be sealed."""
    tokens = count_up(10)
    slab.compute(tokens)
    with pool.lease(16) as lease, slab.planes() as planes:
        assert lease.seal_short(tokens, planes) == lease.tokens == 10
        assert lease.whole_tokens == 8
        with pytest.raises(ValueError, match=r".+"):
            lease.seal(tokens[8:], planes)
    assert restore(pool, tokens) == (10, truth(tokens))


def test_a_match_is_found_to_the_token(pool: Pool) -> None:
    """A prompt that diverges inside a block shares the part before."""
    keep(pool, count_up(10))
    diverging = count_up(10)
    diverging[6] = 7
    assert restore(pool, diverging) == (6, truth(diverging[:6]))
    assert restore(pool, count_up(9)) == (9, truth(count_up(9)))


def test_a_row_goes_on_from_a_partial_match(pool: Pool, slab: Slab) -> None:
    """After a match inside a block, sealing starts at that block's first token."""
    keep(pool, count_up(10))
    branch = np.concatenate([count_up(6), ids(1, 2, 3, 4, 5)])
    with pool.lease(len(branch)) as lease, slab.planes() as planes:
        assert lease.match(branch) == 6
        lease.decode(planes, 0, 2)
        slab.compute(branch)
        assert lease.whole_tokens == 4
        assert lease.seal_short(branch[4:], planes) == 11
    assert restore(pool, branch) == (11, truth(branch))
    assert restore(pool, count_up(10)) == (10, truth(count_up(10)))


def test_equal_prefixes_share_their_frames(pool: Pool) -> None:
    """Two requests that ran side by side keep one copy of what they have in common."""
    tokens = count_up(8)
    slab = Slab()
    slab.compute(tokens, 0)
    slab.compute(tokens, 1)
    with pool.lease(8) as one, pool.lease(8) as other:
        for row, lease in enumerate((one, other)):
            with slab.planes(row) as planes:
                assert lease.seal(tokens, planes) == 8
        assert one.tip == other.tip
        assert (pool.stats().leased, pool.stats().shared_blocks) == (2, 2)


def test_salts_keep_chains_apart(pool: Pool) -> None:
    """The same tokens under another salt are a miss; under the same one a hit."""
    tokens = count_up(8)
    keep(pool, tokens, b"tenant one")
    assert restore(pool, tokens, b"tenant two")[0] == 0
    assert restore(pool, tokens)[0] == 0
    assert restore(pool, tokens, b"tenant one") == (8, truth(tokens))


def test_a_second_match_is_refused(pool: Pool) -> None:
    """A lease matches at most once."""
    with pool.lease(4) as lease:
        lease.match(count_up(4))
        with pytest.raises(ValueError, match=r".+"):
            lease.match(count_up(4))


def test_a_used_up_promise_is_an_error_that_keeps_what_was_sealed(pool: Pool, slab: Slab) -> None:
    """Sealing past the promise raises, and the blocks before stay."""
    with pool.lease(6 * BLOCK):
        tokens = count_up(12)
        slab.compute(tokens)
        with pool.lease(2 * BLOCK) as lease, slab.planes() as planes:
            with pytest.raises(PoolExhausted):
                lease.seal(tokens, planes)
            assert lease.tokens == 8
        assert restore(pool, tokens) == (8, truth(tokens[:8]))


def test_planes_too_short_for_the_tokens_are_refused(pool: Pool) -> None:
    """Neither sealing nor decoding goes past the capacity of a row."""
    tokens = count_up(8)
    keep(pool, tokens)
    small = Slab(capacity=7)
    with pool.lease(8) as lease, small.planes() as planes:
        lease.match(tokens)
        with pytest.raises(ValueError, match=r".+"):
            lease.decode(planes, 0, 2)
    with pool.lease(8) as lease, small.planes() as planes, pytest.raises(ValueError, match=r".+"):
        lease.seal(tokens, planes)


def test_a_released_lease_says_so(pool: Pool, slab: Slab) -> None:
    """Every use after the release raises, and a second release does nothing."""
    lease = pool.lease(4)
    lease.release()
    lease.release()
    with slab.planes() as planes:
        uses = (
            lambda: lease.match(count_up(4)),
            lease.prefetch,
            lambda: lease.decode(planes, 0, 1),
            lambda: lease.seal(count_up(4), planes),
            lambda: lease.seal_short(count_up(4), planes),
            lambda: lease.tokens,
            lambda: lease.tip,
        )
        for use in uses:
            with pytest.raises(LeaseClosed, match="the lease is closed"):
                use()


def test_release_gives_frames_back(pool: Pool) -> None:
    """Unused promises end with the lease, and its chain becomes evictable."""
    keep(pool, count_up(8))
    lease = pool.lease(16)
    lease.match(count_up(8))
    assert (pool.stats().leased, pool.stats().promised) == (2, 2)
    lease.release()
    stats = pool.stats()
    assert (stats.leased, stats.cached, stats.promised, stats.leases) == (0, 2, 0, 0)


CODECS: tuple[tuple[CodecName, float], ...] = (
    ("exact", 0.0),
    ("f16", 0.002),
    ("q8", 0.03),
    ("k8v4", 0.4),
    ("q4", 0.4),
)
DTYPES: tuple[tuple[DTypeName, npt.DTypeLike], ...] = (
    ("float32", np.float32),
    ("float16", np.float16),
)


@pytest.mark.parametrize(("codec", "tolerance"), CODECS)
@pytest.mark.parametrize(("dtype", "kind"), DTYPES)
def test_every_codec_restores_within_its_tolerance(
    codec: CodecName, tolerance: float, dtype: DTypeName, kind: npt.DTypeLike
) -> None:
    """K and V come back within the codec's step, the same bytes each time."""
    geometry = Geometry((LayerShape(2, 64, 64),) * 2, dtype, BLOCK)
    slab = Slab(rows=3, capacity=12, geometry=geometry, kind=kind)
    tokens = count_up(10)
    slab.compute(tokens)
    with Pool.open(
        None, geometry=geometry, codec=codec, fingerprint=FINGERPRINT, size_bytes=1 << 20
    ) as pool:
        with pool.lease(10) as lease, slab.planes(0) as planes:
            lease.seal_short(tokens, planes)
        for row in (1, 2):
            with pool.lease(10) as lease, slab.planes(row) as planes:
                assert lease.match(tokens) == 10
                assert lease.decode(planes, 0, 3) == 10
        pool.check()
    assert slab.bytes(10, row=1) == slab.bytes(10, row=2)
    for buffer in [*slab.keys, *slab.values]:
        assert np.abs(buffer[0] - buffer[1])[:, :10].max() <= tolerance


def test_blocks_decoded_in_slices_equal_those_decoded_at_once(pool: Pool, slab: Slab) -> None:
    """A restore may be cut into any ranges of blocks."""
    tokens = count_up(14)
    keep(pool, tokens)
    with pool.lease(0) as lease, slab.planes() as planes:
        lease.match(tokens)
        for start, end in pairwise((0, 1, 3, 4)):
            assert lease.decode(planes, start, end) == 14
    assert slab.bytes(14) == truth(tokens)


def test_a_turn_grows_the_chain_of_the_turn_before(pool: Pool) -> None:
    """Each turn finds all of the last one, its short block included."""
    history = count_up(0)
    for turn in range(4):
        history = np.concatenate([history, count_up(5, 1000 * turn)])
        assert keep(pool, history) == len(history) - 5
    assert restore(pool, history) == (20, truth(history))


def test_a_request_that_dies_keeps_its_whole_blocks(pool: Pool, slab: Slab) -> None:
    """Blocks sealed before an exception are there for the next request."""
    tokens = count_up(8)
    slab.compute(tokens)

    def die(lease: Lease) -> None:
        with slab.planes() as planes:
            lease.seal(tokens, planes)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), pool.lease(8) as lease:
        die(lease)
    assert restore(pool, tokens) == (8, truth(tokens))


def test_tenants_do_not_share_with_a_memory_pool_either() -> None:
    """Salts work the same without a file."""
    with open_pool(None) as pool:
        keep(pool, count_up(4), b"one")
        assert restore(pool, count_up(4), b"two")[0] == 0
