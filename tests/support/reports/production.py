"""`docs/production.md`: sizes and settings for a machine, worked out from what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboard.figures import shown

from dovecote_cache import Geometry, LayerShape
from dovecote_engine.options import EngineOptions
from reports.data import table

if TYPE_CHECKING:
    from collections.abc import Callable

    from dovecote_cache import CodecName, DTypeName
    from reports.data import Data

__all__ = ["production"]

_HEAD = """\
# In production

This page is generated: `nox -s report` works it out from the measurements behind
[performance.md](performance.md), and a test holds it to them. Sizes are exact. Times are those of
the machine named there, on SmolLM2-135M's shape in float32; on another machine run `nox -s bench`,
then `nox -s bench_publish -- --keep` and `nox -s report`, and read your own."""
_CODECS: tuple[CodecName, ...] = ("exact", "f16", "q8", "k8v4", "q4")
_CONTEXTS = (2048, 8192, 32768)
_GIB = 1 << 30
_POOL_BYTES = 8 * _GIB
_ROWS = (1, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class _Model:
    """As the model's own configuration says."""

    layers: int
    kv_heads: int
    head_dim: int
    context_tokens: int
    dtype: DTypeName

    @property
    def geometry(self) -> Geometry:
        layer = LayerShape(self.kv_heads, self.head_dim, self.head_dim)
        return Geometry((layer,) * self.layers, self.dtype)

    @property
    def contexts(self) -> list[int]:
        return [context for context in _CONTEXTS if context <= self.context_tokens]


_SMOL = _Model(30, 3, 64, 8192, "float32")
_MODELS = {
    "SmolLM2-135M, float32": _SMOL,
    "Llama 3.1 8B, bfloat16": _Model(32, 8, 128, 131072, "bfloat16"),
    "Qwen3 4B, bfloat16": _Model(36, 8, 128, 40960, "bfloat16"),
}
_TIMED = {
    "seal": "pool.SealCost.track_memcpy_times",
    "restore": "pool.RestoreCost.track_memcpy_times",
}
_STEP = "batching.Step.track_milliseconds_a_token"
_NOT_YET = "Not measured yet."


def production(data: Data) -> str:
    """The page."""
    sections: dict[str, Callable[[Data], str]] = {
        "How large a pool": _pool,
        "How much memory": _memory,
        "Which codec": _codec,
        "How many rows": _rows,
        "How long a chunk": _chunk,
        "How much disk, and how fast it wears": _disk,
    }
    parts = [f"## {title}\n\n{make(data) or _NOT_YET}" for title, make in sections.items()]
    return "\n\n".join([_HEAD, *parts]) + "\n"


def _frame_bytes(geometry: Geometry, codec: CodecName) -> float:
    """Of the file, for a block: the frame and its record."""
    blocks = 1 << 16
    return geometry.file_bytes(codec, blocks * geometry.block_tokens) / blocks


def _pool(data: Data) -> str:
    """Bytes by model and codec, and how many agents fit into a pool."""
    sizes, agents, options = [], [], EngineOptions()
    for name, model in _MODELS.items():
        geometry = model.geometry
        each = [_frame_bytes(geometry, codec) / geometry.block_tokens for codec in _CODECS]
        sizes.append([name, *(f"{size:,.0f}" for size in each)])
        for context in model.contexts:
            fitting = [int(_POOL_BYTES / size / context) for size in each]
            agents.append([f"{name}, {context:,} tokens", *(f"{n:,}" for n in fitting)])
    head = ["model", *(f"`{codec}`" for codec in _CODECS)]
    found = data.values("memory.CacheAndModel.track_bytes_a_token")
    seen = ", ".join(f"`{codec}` {size:,.0f}" for codec, size in found.items())
    measured = f"\n\nMeasured on SmolLM2-135M's shape, records apart: {seen}." if seen else ""
    return (
        "Bytes a token in the pool's file, with the record of its frame:\n\n"
        f"{table(head, sizes)}{measured}\n\n"
        f"So many agents' histories fit into `--pool-size {_POOL_BYTES // _GIB}GiB` if they share "
        f"nothing; a system prompt and forks count once:\n\n{table(head, agents)}\n\n"
        "So `--pool-size` is agents times context times bytes a token. Beside that every request "
        "that runs or waits is promised the frames of its prompt and of its `max_tokens` "
        f"({options.default_max_tokens:,} where it states none), at most "
        f"{options.pool_limit * 100:g} % of all frames together; more are answered with 429. Idle "
        "histories make room, least recently used first: too small a pool costs no answer, but "
        "what was evicted is computed again."
    )


def _memory(data: Data) -> str:
    """Weights, slab, page cache."""
    share = data.values("memory.CacheAndModel.track_cache_against_weights")
    size = data.values("memory.CacheAndModel.track_bytes_a_token")
    slab = data.values("memory.Agents.track_slab")
    grown = data.values("memory.Agents.track_resident")
    if not (share and size and slab and grown):
        return ""
    weights = 2048 * size["exact"] / share["exact"]
    rows = [
        [agents, shown(slab[agents], "bytes"), shown(grown[agents], "bytes")] for agents in slab
    ]
    dense = _SMOL.geometry.dense_bytes_per_token
    need = [
        [str(count), *(shown(count * context * dense, "bytes") for context in _SMOL.contexts)]
        for count in _ROWS
    ]
    budget = shown(EngineOptions().slab_bytes, "bytes")
    return (
        f"The weights take {shown(weights, 'bytes')}. The slab holds the dense K and V of the rows "
        f"that run, {dense:,} bytes a token, in as many rows as a power of two has, each as long "
        "as the longest needs and 2,048 tokens at least:\n\n"
        f"{table(['running agents of 512 tokens', 'slab', 'process grew by'], rows)}\n\n"
        f"`--slab-size` (by default {budget}) bounds it; so much is needed for\n\n"
        f"{table(['rows', *(f'{n:,} tokens' for n in _SMOL.contexts)], need)}\n\n"
        "Agents at rest take none of it. The pool is read and written through the page cache: "
        "memory that is left over makes restores as fast as memory, and none has to be set aside."
    )


def _codec(data: Data) -> str:
    """Bytes against time."""
    bytes_a_token = data.values("memory.CacheAndModel.track_bytes_a_token")
    times = {what: data.values(name) for what, name in _TIMED.items()}
    rows = [
        [
            f"`{codec}`",
            f"{bytes_a_token[codec]:,.0f}",
            f"{bytes_a_token[codec] / bytes_a_token['exact']:.2f}",
            *(f"{found[codec]:.2f}" if codec in found else "-" for found in times.values()),
        ]
        for codec in _CODECS
        if codec in bytes_a_token
    ]
    if not rows:
        return ""
    head = ["codec", "bytes a token", "of `exact`", "seal, times memcpy", "restore, times memcpy"]
    return (
        f"{table(head, rows)}\n\n"
        "What each costs in quality is measured in "
        "[decision 0001](decisions/0001-default-codec.md). Take `q8`, the default. Where the pool "
        "is too small for the agents, `k8v4` before evicting histories; `exact` where answers have "
        "to be those of a cold run to the token; `q4` only for histories that nobody has to recall "
        "precisely."
    )


def _steps(data: Data) -> dict[int, float]:
    """Milliseconds of a step by the rows that run."""
    found = data.values(_STEP)
    return {int(rows): ms * int(rows) for rows, ms in found.items()}


def _rows(data: Data) -> str:
    """What more rows gain and what they cost."""
    steps = _steps(data)
    if 1 not in steps:
        return ""
    rows = [
        [
            str(count),
            f"{ms:.0f}",
            f"{1000 * count / ms:.1f}",
            f"{1000 / ms:.1f}",
            f"{count * steps[1] / ms:.2f}",
        ]
        for count, ms in steps.items()
    ]
    head = ("rows", "ms a step", "tokens/s of all", "tokens/s of each", "times one row")
    found = data.latest(_STEP)
    where = f", measured at commit `{found[0].name}`" if found else ""
    default = EngineOptions().max_rows
    return (
        f"With 256 tokens of context a row{where}:\n\n{table(head, rows)}\n\n"
        f"`--max-rows` is {default} unless told otherwise. Raise it while the gain of all is worth "
        "what each loses; a request beyond it waits, and its history waits in the pool at no cost."
    )


def _chunk(data: Data) -> str:
    """The gaps that the defaults allow."""
    steps, options = _steps(data), EngineOptions()
    most, ratio = options.chunk_seconds * 1000, options.gap_ratio
    text = (
        "While a prompt is computed, a row that runs waits for its next token at most "
        f"`--gap-ratio` ({ratio:g}) times as long as without it, and no piece of a prompt takes "
        f"longer than `--chunk-ms` ({most:.0f}). A step has so much time beside its decoding:"
    )
    rows = []
    for count, ms in steps.items():
        allowed = min(most, ms * (ratio - 1))
        by = "`--gap-ratio`" if allowed < most else "`--chunk-ms`"
        rows.append([str(count), *(f"{each:.0f} ms" for each in (ms, allowed, ms + allowed)), by])
    if not rows:
        return ""
    head = ("rows", "step alone", "for prompts", "gap then", "bound by")
    return (
        f"{text}\n\n{table(head, rows)}\n\n"
        "Lower them for people who read along. Raise the one that binds where only the time to the "
        "last token counts, or where long cold prompts wait: short pieces are computed less "
        "efficiently ([0012](decisions/0012-flat-gaps.md))."
    )


def _disk(data: Data) -> str:
    """Budget and wear."""
    steps, size = _steps(data), data.values("memory.CacheAndModel.track_bytes_a_token")
    written = data.latest("memory.Turn.track_bytes_written")
    text = (
        "`--disk-budget` bounds everything in the cache directory; by default it is twice "
        "`--pool-size` beside what may not be removed, so that a model that is swapped out keeps "
        "its pool. The pool's file is taken whole when it is made: a disk that fills up later does "
        "not hurt it."
    )
    if not (steps and size and written):
        return text
    factor = next(iter(written[1].values.values()))
    count, ms = max(steps.items(), key=lambda item: item[0] / item[1])
    rate = 1000 * count / ms
    rows = [
        [f"`{codec}`", f"{rate * each * factor * 86400 / _GIB:,.0f} GiB"]
        for codec, each in size.items()
    ]
    return (
        f"{text}\n\nEvery new token is written once, and a turn writes {factor:.2f} times the "
        f"bytes of its tokens. If this machine decoded without a pause ({rate:.0f} tokens/s), a "
        f"day would write\n\n{table(('codec', 'a day'), rows)}\n\n"
        "to which the tokens of prompts are to be added."
    )
