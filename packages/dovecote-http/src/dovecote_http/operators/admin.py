"""/admin: what an operator asks of a running server.

    GET  /admin/swap          the model served, those it may be swapped for, the last swap
    POST /admin/swap          {"model": ..., "drain_seconds": ..., "wait": ...}
    POST /admin/drain         no new requests, until undrained
    POST /admin/undrain
    GET  /admin/pool          what the pool holds and did
    POST /admin/pool/verify   {"stream": ...}: reads every frame and checks it

Does not know who may ask (`admin_access.py`), nor how a swap goes (`swaps.py`).
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from msgspec import Struct

from dovecote_engine.errors import ModelError
from dovecote_http.access.admin_access import admins_only
from dovecote_http.answers.bodies import decode_body
from dovecote_http.answers.sse import DONE, SseStream
from dovecote_http.bridge.door import Closure
from dovecote_http.bridge.swaps import SwapUnderway
from dovecote_http.errors import ApiError, ErrorBody, invalid
from dovecote_http.keys import BRIDGE, SETTINGS, STREAM, SWAPS
from dovecote_http.middlewares import expect
from dovecote_http.operators.metrics import pool_numbers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dovecote_http.bridge.bridge import EngineBridge
    from dovecote_http.bridge.engine_like import EngineLike, VerifiedLike
    from dovecote_http.bridge.swaps import ModelSwap

_DRAINED_RETRY_S = 10.0
_MOST_DRAIN_S = 3600.0
_SLICE_FRAMES = 32
"""Frames of one slice of a verification: some ten MB, which a closing pool waits for."""


class SwapWish(Struct, frozen=True, forbid_unknown_fields=True):
    """The model wanted. `drain_seconds`: how long running requests have; `wait`: for the end."""

    model: str
    drain_seconds: float | None = None
    wait: bool = True


class SwapBody(Struct, frozen=True):
    """A swap. `phase`: draining, closing, loading, rolling_back; done, rolled_back or failed."""

    object: str
    model: str
    before: str | None
    phase: str
    began: int
    seconds: float
    reason: str | None


class SwapStatus(Struct, frozen=True):
    """`model`: the served one, null while there is none."""

    object: str
    model: str | None
    models: list[str]
    last: SwapBody | None


class DrainBody(Struct, frozen=True):
    """Whether new requests are taken, and how many are under way."""

    object: str
    draining: bool
    running: int
    waiting: int


class VerificationWish(Struct, frozen=True, forbid_unknown_fields=True):
    """`stream`: how far it is comes as events, and at last what was found."""

    stream: bool = False


class Verifying(Struct, frozen=True):
    """How far a verification is: `frames_done` of all `frames`, free ones included."""

    object: str
    frames: int
    frames_done: int


class Verification(Struct, frozen=True):
    """What was found: frames read, and those dropped since they were damaged."""

    object: str
    sound: bool
    checked_frames: int
    damaged_frames: int
    seconds: float


async def swap_status(request: web.Request) -> web.Response:
    """Which model is served, and how the last swap went."""
    swaps = request.app[SWAPS]
    last = None if swaps.last is None else _swap_body(swaps.last)
    return _json(SwapStatus("model.swaps", swaps.served, list(swaps.names), last))


async def swap(request: web.Request) -> web.Response:
    """Has another model served: 200 once it is, 202 if that is not waited for."""
    wish = decode_body(await request.read(), SwapWish)
    drain_s = request.app[SETTINGS].drain_s if wish.drain_seconds is None else wish.drain_seconds
    if not 0 <= drain_s <= _MOST_DRAIN_S:
        raise invalid(f"'drain_seconds' must be 0 to {_MOST_DRAIN_S:g}.", "drain_seconds")
    try:
        begun = await request.app[SWAPS].begin(wish.model, drain_s)
    except ModelError as error:
        raise invalid(str(error), "model", "model_unusable") from error
    except SwapUnderway as error:
        raise _conflict(str(error), "swap_underway") from error
    if not wish.wait:
        return _json(_swap_body(begun), 202)
    ended = await request.app[SWAPS].outcome()
    if ended.phase != "done":
        raise _not_done(ended)
    return _json(_swap_body(ended))


async def drain(request: web.Request) -> web.Response:
    """Takes no new requests from now on; those under way go on."""
    message = "The server takes no new requests: its operator has drained it."
    request.app[BRIDGE].close_door(Closure("drained", message, _DRAINED_RETRY_S))
    return await _drain_body(request)


async def undrain(request: web.Request) -> web.Response:
    """Takes new requests again."""
    request.app[BRIDGE].open_door("drained")
    return await _drain_body(request)


async def pool(request: web.Request) -> web.Response:
    """What the pool holds and did, in the words of the metrics."""
    numbers = pool_numbers((await request.app[BRIDGE].status()).pool)
    active = numbers["leased_frames"] + numbers["promised_frames"]
    body = {
        "object": "pool",
        "model": request.app[BRIDGE].model.id,
        "active_share": active / max(1, numbers["frames"]),
        **numbers,
    }
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


async def verify(request: web.Request) -> web.StreamResponse:
    """Checks the pool's index, then reads every sealed frame and checks its payload.

    Between two slices requests go on; damaged frames are dropped, and count as misses.
    """
    raw = await request.read()
    wish = decode_body(raw, VerificationWish) if raw else VerificationWish()
    if wish.stream:
        return await _stream_verification(request)
    *_, found = [told async for told in _verification(request.app[BRIDGE])]
    return _json(found)


async def _stream_verification(request: web.Request) -> web.StreamResponse:
    sse = request[STREAM] = SseStream(request)
    async for told in _verification(request.app[BRIDGE]):
        await sse.open({})
        await sse.send(msgspec.json.encode(told))
    await sse.end(DONE)
    return sse.response


async def _verification(bridge: EngineBridge) -> AsyncIterator[Verifying | Verification]:
    """How far it is after each slice, and in the end what was found. Raises: ApiError (409)."""
    began_s = time.monotonic()
    model, frames = bridge.model, (await bridge.status()).pool.frames
    is_sound = await bridge.ask(lambda engine: engine.check_pool())
    checked = damaged = start = 0
    while start < frames:
        if bridge.model is not model:
            raise _conflict("The model was exchanged meanwhile, and its pool closed.", "swapped")
        found = await bridge.ask(partial(_verify_slice, start))
        checked, damaged = checked + found.checked, damaged + found.damaged
        start = found.next_frame
        yield Verifying("pool.verifying", frames, start)
    seconds = round(time.monotonic() - began_s, 3)
    is_sound = is_sound and not damaged
    yield Verification("pool.verification", is_sound, checked, damaged, seconds)


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this module under the prefix."""
    path = f"{prefix}/admin"
    calls = (
        ("GET", "/swap", swap_status),
        ("POST", "/swap", swap),
        ("POST", "/drain", drain),
        ("POST", "/undrain", undrain),
        ("GET", "/pool", pool),
        ("POST", "/pool/verify", verify),
    )
    return [
        web.route(method, path + rest, admins_only(handler), expect_handler=expect)
        for method, rest, handler in calls
    ]


def _verify_slice(start: int, engine: EngineLike) -> VerifiedLike:
    return engine.verify_pool(start, _SLICE_FRAMES)


async def _drain_body(request: web.Request) -> web.Response:
    bridge = request.app[BRIDGE]
    health, status = bridge.health, await bridge.status()
    is_draining = health.draining or health.closure is not None
    return _json(DrainBody("drain", is_draining, status.running, status.waiting))


def _swap_body(swap: ModelSwap) -> SwapBody:
    return SwapBody(
        object="model.swap",
        model=swap.model,
        before=swap.before,
        phase=swap.phase,
        began=int(swap.began),
        seconds=round(swap.seconds, 3),
        reason=swap.reason,
    )


def _not_done(swap: ModelSwap) -> ApiError:
    """A 500 that is not to be tried again: the next attempt would stop the service as long."""
    after = "none is served now" if swap.phase == "failed" else f"'{swap.before}' is served again"
    message = f"The model '{swap.model}' could not be loaded, {after}: {swap.reason}"
    body = ErrorBody(message, "server_error", "model", f"swap_{swap.phase}")
    return ApiError(500, body, headers={"x-should-retry": "false"})


def _conflict(message: str, code: str) -> ApiError:
    body = ErrorBody(message, "invalid_request_error", None, code)
    return ApiError(409, body, headers={"x-should-retry": "false"})


def _json(body: Struct, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json"
    )
