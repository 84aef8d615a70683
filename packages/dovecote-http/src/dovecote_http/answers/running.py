"""The requests under way, by the ids that their callers know.

Does not know the engine: a request is here from its arrival on, before and after it is computed.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dovecote_http.access.tenants import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dovecote_http.access.tenants import Tenant


@dataclass(slots=True)
class RunningRequest:
    """A request under way.

    `engine_ids`: what the engine computes for it, once that is known. `is_cancelled` before they
    are submitted: they are not to be computed.
    """

    completion_id: str
    request_id: str
    tenant: Tenant
    engine_ids: list[str] = field(default_factory=list)
    is_cancelled: bool = False


class RunningRequests:
    """The requests under way. Event loop only."""

    def __init__(self) -> None:
        self._entries: list[RunningRequest] = []

    @contextmanager
    def listed(
        self, completion_id: str, request_id: str, tenant: Tenant = OPERATOR
    ) -> Iterator[RunningRequest]:
        """Keeps the request in the list until the block ends."""
        entry = RunningRequest(completion_id, request_id, tenant)
        self._entries.append(entry)
        try:
            yield entry
        finally:
            self._entries = [each for each in self._entries if each is not entry]

    def find(self, name: str, tenant: Tenant = OPERATOR) -> list[RunningRequest]:
        """Those that go by that id and are the tenant's; an admin's are all."""
        return [
            each
            for each in self._entries
            if name in (each.completion_id, each.request_id)
            and (tenant.is_admin or each.tenant == tenant)
        ]
