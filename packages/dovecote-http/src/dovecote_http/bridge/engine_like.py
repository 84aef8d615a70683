"""The engine as the HTTP service sees it: the calls it makes and the numbers it reads.

Structural, so that nothing of the pool or of MLX is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dovecote_engine.agents.agent import AgentChanges, AgentView
    from dovecote_engine.agents.forecast import Forecast
    from dovecote_engine.agents.runs import Run
    from dovecote_engine.request import Event, Request
    from dovecote_engine.served import PromptTokenizer


class ModelLike(Protocol):
    """The one model that the engine serves."""

    @property
    def id(self) -> str: ...
    @property
    def created(self) -> int: ...
    @property
    def context_tokens(self) -> int: ...
    @property
    def tokenizer(self) -> PromptTokenizer: ...
    @property
    def uncached(self) -> str: ...


class PoolStatsLike(Protocol):
    """A snapshot of the pool; `metrics.py` says what each number means."""

    @property
    def frames(self) -> int: ...
    @property
    def leased(self) -> int: ...
    @property
    def cached(self) -> int: ...
    @property
    def free(self) -> int: ...
    @property
    def pinned(self) -> int: ...
    @property
    def promised(self) -> int: ...
    @property
    def frame_bytes(self) -> int: ...
    @property
    def file_bytes(self) -> int: ...
    @property
    def held_bytes(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def matched_tokens(self) -> int: ...
    @property
    def decoded_tokens(self) -> int: ...
    @property
    def sealed_blocks(self) -> int: ...
    @property
    def shared_blocks(self) -> int: ...
    @property
    def evicted_blocks(self) -> int: ...
    @property
    def superseded_blocks(self) -> int: ...
    @property
    def bytes_written(self) -> int: ...
    @property
    def bytes_read(self) -> int: ...
    @property
    def miss_checksum(self) -> int: ...
    @property
    def miss_orphan(self) -> int: ...
    @property
    def miss_io(self) -> int: ...
    @property
    def write_errors(self) -> int: ...


class VerifiedLike(Protocol):
    """What a slice of a pool's verification found."""

    @property
    def checked(self) -> int: ...
    @property
    def damaged(self) -> int: ...
    @property
    def next_frame(self) -> int: ...


class CountersLike(Protocol):
    """What the engine has done since it started."""

    @property
    def steps(self) -> int: ...
    @property
    def prefilled_tokens(self) -> int: ...
    @property
    def decode_steps(self) -> int: ...
    @property
    def decoded_rows(self) -> int: ...
    @property
    def decode_seconds(self) -> float: ...
    @property
    def seal_seconds(self) -> float: ...
    @property
    def seal_errors(self) -> int: ...
    @property
    def checkpoints(self) -> int: ...
    @property
    def checkpoint_misses(self) -> int: ...
    @property
    def book_errors(self) -> int: ...
    @property
    def slab_losses(self) -> int: ...
    @property
    def expired(self) -> int: ...


class StatusLike(Protocol):
    """A snapshot of the engine."""

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def waiting_tokens(self) -> int: ...
    @property
    def draining(self) -> bool: ...
    @property
    def slab_bytes(self) -> int: ...
    @property
    def counters(self) -> CountersLike: ...
    @property
    def pool(self) -> PoolStatsLike: ...


class AgentsLike(Protocol):
    """The agents by name. Any thread. What each call raises stands at `dovecote_engine.Agents`."""

    def list(self) -> Sequence[AgentView]:
        """All of them, the most recently used first."""

    def survey(self) -> tuple[Sequence[AgentView], Sequence[Run]]:
        """All of them, and which of them share which cached blocks."""

    def get(self, name: str) -> AgentView:
        """One of them."""

    def forecast(self, name: str | None, prompt: tuple[int, ...], salt: bytes) -> Forecast:
        """What a prompt of that agent would find."""

    def fork(self, name: str, new_name: str) -> AgentView:
        """A new one over the same chain."""

    def change(self, name: str, changes: AgentChanges) -> AgentView:
        """Changes all that is asked for, or nothing."""

    def delete(self, name: str) -> int:
        """Forgets it; the blocks that this freed."""

    def export(self, name: str, path: Path, shown_name: str | None = None) -> int:
        """Writes its archive, in which it has the shown name; the tokens in it."""

    def import_(
        self, path: Path, name: str | None = None, scope: str = "", salt: bytes | None = None
    ) -> AgentView:
        """Brings an archive's agent in, behind the scope and under the salt."""


class EngineLike(Protocol):
    """The engine. `wait`, `step` and `close` belong to the thread that made it, the rest to any."""

    @property
    def model(self) -> ModelLike: ...
    @property
    def status(self) -> StatusLike: ...
    @property
    def agents(self) -> AgentsLike: ...

    def submit(self, request: Request) -> None:
        """Admits the request; events follow. Raises: BadRequest, Overloaded, Draining."""

    def screen(self, characters: int) -> None:
        """Refuses early what `submit` would refuse. Raises: BadRequest, Overloaded, Draining."""

    def cancel(self, request_id: str) -> str | None:
        """Gives the request up; what it was doing, None if it is unknown or over. Idempotent."""

    def check_pool(self) -> bool:
        """Whether the pool's index is as it must be."""

    def verify_pool(self, first_frame: int, frames: int) -> VerifiedLike:
        """Reads and checks the payload of so many frames."""

    def drain(self) -> None:
        """Refuses new work from now on."""

    def wake(self) -> None:
        """Ends a `wait`."""

    def wait(self, timeout_s: float) -> bool:
        """True once there is work; False after `timeout_s` or a `wake`."""

    def step(self) -> list[Event]:
        """Does one step's work and tells what came of it."""

    def close(self) -> None:
        """Ends the engine."""
