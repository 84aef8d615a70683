"""Swaps the served model for another one while the server runs, one swap at a time.

    begin --> draining --> closing --> loading --> done
                              |           `--> rolling_back --> rolled_back   the one before serves
                              `---------------------------`--> failed         nobody serves

From its beginning to its end new requests get 503 with `Retry-After`. A swap that was begun goes on
whether or not anybody waits for its outcome; the last one is remembered.

Does not know how engines are made, nor HTTP.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

import structlog

from dovecote_engine.errors import ModelError
from dovecote_http.bridge.bridge import EngineStopped
from dovecote_http.bridge.door import Closure, DoorClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dovecote_http.bridge.bridge import EngineBridge, Phase
    from dovecote_http.bridge.engine_like import EngineLike

__all__ = ["Catalogue", "ModelChoice", "ModelSwap", "ModelSwaps", "Outcome", "SwapUnderway"]

Outcome = Literal["done", "rolled_back", "failed"]

_LONGEST_RETRY_S = 30.0
"""Clients try again twice at most: a guess that is too long costs less than one too short."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote.swaps")


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model that can be served: its public name, and what makes its engine."""

    name: str
    factory: Callable[[], EngineLike]


class Catalogue(Protocol):
    """The models that the operator lets this server serve."""

    @property
    def names(self) -> Sequence[str]:
        """Public names of those that are known in advance."""

    @property
    def serves_on_request(self) -> bool:
        """Whether a request that names one of `names` has it loaded."""

    def find(self, name: str) -> ModelChoice:
        """The model of that name or place. Looks at files. Raises: ModelError."""


@dataclass(frozen=True, slots=True)
class ModelSwap:
    """One swap. `began` in unix seconds; `seconds` until its end, or until now.

    `reason`: why it was not done, for the operator.
    """

    model: str
    before: str | None
    began: float
    seconds: float = 0.0
    phase: Phase | Outcome = "draining"
    reason: str | None = None


class SwapUnderway(Exception):
    """A swap was asked for while another one is not over."""

    def __init__(self, model: str) -> None:
        super().__init__(f"The server is already changing over to the model '{model}'.")


class ModelSwaps:
    """The swaps of one server. Event loop only."""

    def __init__(
        self, bridge: EngineBridge, catalogue: Catalogue | None, count: Callable[[Outcome], None]
    ) -> None:
        """`catalogue` None: no other model can be served. `count` is told each outcome."""
        self._bridge = bridge
        self._catalogue = catalogue
        self._count = count
        self._task: asyncio.Task[ModelSwap] | None = None
        self._request: asyncio.Task[None] | None = None
        self._swap: ModelSwap | None = None

    @property
    def served(self) -> str | None:
        """The served model's name, None while there is none."""
        try:
            return self._bridge.model.id
        except (EngineStopped, DoorClosed):
            return None

    @property
    def names(self) -> Sequence[str]:
        """The models that may be named in advance."""
        return () if self._catalogue is None else self._catalogue.names

    @property
    def last(self) -> ModelSwap | None:
        """The swap under way, else the last one."""
        swap, phase = self._swap, self._bridge.phase
        if swap is None or not self._is_underway():
            return swap
        return replace(swap, phase=phase or swap.phase, seconds=time.time() - swap.began)

    @property
    def requestable(self) -> Sequence[str]:
        """The models that a request may name beside the served one."""
        catalogue = self._catalogue
        return catalogue.names if catalogue is not None and catalogue.serves_on_request else ()

    async def begin(self, name: str, drain_s: float) -> ModelSwap:
        """Begins a swap to the model of that name. The served one may be loaded anew.

        Raises: ModelError if there is no such model to be served, SwapUnderway; EngineStopped if
        the server shuts down. Nothing has changed then.
        """
        if self._catalogue is None:
            raise ModelError("This server has no other models.")
        choice = await asyncio.to_thread(self._catalogue.find, name)
        return self._begin(choice, drain_s)

    async def outcome(self) -> ModelSwap:
        """The last swap that was begun, once it is over."""
        assert self._task is not None, "begin() comes before outcome()"  # noqa: S101
        return await asyncio.shield(self._task)

    def serve_on_request(self, name: str, drain_s: float) -> None:
        """Begins a swap for a request, if requests may have that model loaded.

        Raises: DoorClosed then, since this request comes too early.
        """
        if name in self.requestable:
            self._request = asyncio.create_task(self._begin_for_request(name, drain_s))
            raise DoorClosed(self._closure(name))

    def _is_underway(self) -> bool:
        return self._task is not None and not self._task.done()

    def _begin(self, choice: ModelChoice, drain_s: float) -> ModelSwap:
        if self._swap is not None and self._is_underway():
            raise SwapUnderway(self._swap.model)
        if self._bridge.health.draining:
            raise EngineStopped("The server is shutting down.")
        before = self.served
        self._swap = swap = ModelSwap(choice.name, before, time.time())
        self._bridge.close_door(self._closure(choice.name))
        _log.info("swap_begun", model=choice.name, before=before, drain_s=drain_s)
        self._task = asyncio.create_task(self._run(choice, drain_s))
        return swap

    def _closure(self, name: str) -> Closure:
        retry_s = min(_LONGEST_RETRY_S, self._bridge.load_s + 1)
        return Closure("swapping", f"The model '{name}' is being loaded.", retry_s)

    async def _begin_for_request(self, name: str, drain_s: float) -> None:
        try:
            await self.begin(name, drain_s)
        except (ModelError, EngineStopped) as error:
            _log.warning("swap_not_begun", model=name, reason=str(error))
        except SwapUnderway:
            pass  # begun by a request beside this one, or somebody else comes first

    async def _run(self, choice: ModelChoice, drain_s: float) -> ModelSwap:
        try:
            await self._bridge.exchange(choice.factory, drain_s)
        except Exception as error:  # noqa: BLE001 - its place is the outcome, whatever it is
            outcome: Outcome = "rolled_back" if self._bridge.health.alive else "failed"
            # In a thread, since rendering a traceback would block the event loop.
            say = partial(_log.error, "swap_not_done", outcome=outcome, exc_info=error)
            await asyncio.to_thread(say)
            return self._end(outcome, error)
        finally:
            self._bridge.open_door("swapping")
        return self._end("done", None)

    def _end(self, outcome: Outcome, error: Exception | None) -> ModelSwap:
        assert self._swap is not None  # noqa: S101 - `_begin` set it
        reason = None if error is None else str(error) or type(error).__name__
        seconds = time.time() - self._swap.began
        self._swap = replace(self._swap, phase=outcome, seconds=seconds, reason=reason)
        self._count(outcome)
        _log.info("swap_over", outcome=outcome, model=self._swap.model, seconds=round(seconds, 2))
        return self._swap
