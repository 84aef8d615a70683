"""What a schema may not ask for since it takes too long to compile, whatever llguidance's limits.

A `multipleOf` becomes as many states as it is large (40 microseconds each), and two that have to
hold together as many as their least common multiple. Properties that may be left out are compiled
in time that grows with the square of their number (500: 0.1 s; 4,400: 4 s).

Does not know grammars.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING

from dovecote_engine.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["check_bounds"]

_MOST_STATES = 10_000
_MOST_OPTIONAL = 500
_MOST_DIGITS = 12


def check_bounds(schema: Mapping[str, object], field: str) -> None:
    """Raises: BadRequest(field) if the schema is beyond a bound."""
    multiples: set[Decimal] = set()
    for part in _parts(schema):
        if _optional(part) > _MOST_OPTIONAL:
            message = f"{field}: an object has more than {_MOST_OPTIONAL} optional properties"
            raise BadRequest(message, field)
        multiple = part.get("multipleOf")
        if isinstance(multiple, int | float) and math.isfinite(multiple) and multiple > 0:
            multiples.add(Decimal(str(multiple)))
    if _states(multiples) > _MOST_STATES:
        message = f"{field}: the least common multiple of its 'multipleOf' is above {_MOST_STATES}"
        raise BadRequest(message, field)


def _parts(schema: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Every object inside, at any depth; one that is no schema costs nothing but the look."""
    left: list[object] = [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            yield part
            left += part.values()
        elif isinstance(part, list):
            left += part


def _optional(part: Mapping[str, object]) -> int:
    properties, required = part.get("properties"), part.get("required")
    if not isinstance(properties, dict):
        return 0
    return len(properties.keys() - set(map(str, required if isinstance(required, list) else ())))


def _states(multiples: set[Decimal]) -> int:
    """The least common multiple, in units of the last decimal place that any of them has."""
    places = max((-int(each.as_tuple().exponent) for each in multiples), default=0)
    if places > _MOST_DIGITS or any(each.adjusted() > _MOST_DIGITS for each in multiples):
        return _MOST_STATES + 1
    states = 1
    for each in multiples:
        states = math.lcm(states, int(each.scaleb(max(0, places))))
        if states > _MOST_STATES:
            break
    return states
