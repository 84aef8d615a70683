"""Hot swap: drain, close, load, switch, and back again where that fails."""

from __future__ import annotations

import asyncio
import json
import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from tiny_engine import TinyLoaded, build, greedy, random_model

from dovecote_engine.errors import ModelError
from dovecote_engine.request import Finished
from dovecote_http import EngineBridge, ModelChoice
from tests.unit.http.scripted_engine import TIMEOUT_S, Script, ScriptedEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.http.conftest import Service, Start

PARROT = "scripted/parrot"
BODY = {"messages": [{"role": "user", "content": "Hi"}]}


class Load:
    """What a half-loaded model is."""


@dataclass
class Shelf:
    """Models to swap to: each name says what it does; `held` ones load when released."""

    serves_on_request: bool = False
    names: tuple[str, ...] = (PARROT, "owl")
    made: list[ScriptedEngine] = field(default_factory=list)
    loads: list[weakref.ref[Load]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    go: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.go.set()
        self.lives: list[weakref.ref[ScriptedEngine]] = []
        self.alive_at_load: list[int] = []

    def find(self, name: str) -> ModelChoice:
        if name not in self.names:
            raise ModelError(f"there is no {name}")
        return ModelChoice(name, lambda: self.load(name))

    def load(self, name: str) -> ScriptedEngine:
        assert self.go.wait(TIMEOUT_S)
        half = Load()
        self.alive_at_load.append(sum(life() is not None for life in self.lives))
        self.alive_at_load[-1] += sum(load() is not None for load in self.loads)
        self.loads.append(weakref.ref(half))
        if name in self.broken:
            raise MemoryError(f"no room for {name}")
        engine = ScriptedEngine(Script(), name)
        self.lives.append(weakref.ref(engine))
        return engine


async def swap(service: Service, **body: object) -> tuple[int, dict[str, Any]]:
    async with service.session.post("/admin/swap", json=body) as response:
        return response.status, await response.json()


async def look(service: Service) -> dict[str, Any]:
    async with service.session.get("/admin/swap") as response:
        assert response.status == 200
        found: dict[str, Any] = await response.json()
        return found


async def until_phase(service: Service, claim: Callable[[str], bool]) -> dict[str, Any]:
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            last = (await look(service))["last"]
            if last is not None and claim(last["phase"]):
                return dict(last)
            await asyncio.sleep(0.005)


async def ask(service: Service, model: str | None = None) -> tuple[int, dict[str, Any]]:
    body = BODY if model is None else {**BODY, "model": model}
    async with service.post(body) as response:
        if response.status == 503:
            assert 1 <= float(response.headers["Retry-After"]) <= 30
        return response.status, await response.json()


async def swaps_counted(service: Service) -> dict[str, float]:
    async with service.session.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    start = 'dovecote_model_swaps_total{outcome="'
    told = [line.removeprefix(start).split('"} ') for line in lines if line.startswith(start)]
    return {outcome: float(value) for outcome, value in told}


async def test_the_new_model_serves_after_a_swap(start: Start) -> None:
    """The call answers once it does; requests may name it then, and no longer the one before."""
    service = await start(catalogue=Shelf())
    status, body = await swap(service, model="owl")
    assert (status, body["phase"], body["before"], body["model"]) == (200, "done", PARROT, "owl")
    assert service.engine.closed
    assert (await ask(service, "owl"))[0] == 200
    status, error = await ask(service, PARROT)
    assert (status, error["error"]["code"]) == (404, "model_not_found")
    async with service.session.get("/v1/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["owl"]
    assert await swaps_counted(service) == {"done": 1, "rolled_back": 0, "failed": 0}


async def test_running_requests_end_first_and_new_ones_are_told_to_come_back(start: Start) -> None:
    """A stream that runs ends whole; meanwhile readiness and requests for either model are 503."""
    service = await start(Script(holds_after=1), catalogue=Shelf())
    async with service.post({**BODY, "stream": True}) as response:
        await response.content.readline()
        swapping = asyncio.create_task(swap(service, model="owl"))
        last = await until_phase(service, lambda phase: phase == "draining")
        assert last["model"] == "owl"
        for model in (None, PARROT, "owl"):
            status, error = await ask(service, model)
            assert (status, error["error"]["code"]) == (503, "swapping")
        async with service.session.get("/health/ready") as ready:
            assert ready.status == 503
            assert "'owl' is being loaded" in (await ready.json())["error"]["message"]
        assert not service.engine.closed
        service.engine.release()
        assert (await response.read()).endswith(b"data: [DONE]\n\n")
    assert (await swapping)[0] == 200
    assert (await ask(service))[1]["model"] == "owl"


async def test_requests_that_do_not_end_in_time_get_an_error(start: Start) -> None:
    """The drain is bounded: what is left over is failed, and the swap goes on."""
    service = await start(Script(holds_after=1), catalogue=Shelf())
    async with service.post({**BODY, "stream": True}) as response:
        await response.content.readline()
        status, _ = await swap(service, model="owl", drain_seconds=0)
        assert status == 200
        text = (await response.read()).decode()
    (error,) = [line for line in text.splitlines() if "The model is being exchanged." in line]
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "generation_failed"


async def test_a_failed_swap_rolls_back(start: Start) -> None:
    """The error names the reason; the model before serves again, and the failure is counted."""
    shelf = Shelf(broken={"owl"})
    service = await start(catalogue=shelf)
    status, body = await swap(service, model="owl")
    assert status == 500
    assert body["error"]["code"] == "swap_rolled_back"
    assert "no room for owl" in body["error"]["message"]
    assert len(service.engines) == 2
    assert (await ask(service, PARROT))[0] == 200
    assert (await look(service))["last"]["phase"] == "rolled_back"
    assert (await swaps_counted(service))["rolled_back"] == 1


async def test_memory_of_one_model_is_free_before_the_next_is_loaded(start: Start) -> None:
    """B7: neither the engine before nor what a failed load held is left when a load begins."""
    shelf = Shelf(names=("owl", "crow", "wren"), broken={"crow"})
    service = await start(catalogue=shelf)
    for name, status in (("owl", 200), ("wren", 200), ("crow", 500), ("owl", 200)):
        assert (await swap(service, model=name))[0] == status
        assert (await ask(service))[0] == 200
    # owl, wren, crow that fails, wren again, owl
    assert shelf.alive_at_load == [0, 0, 0, 0, 0]


async def test_weights_of_the_real_engine_are_free_before_the_next_are_loaded() -> None:
    """B7 with real parts: nothing of the engine, its slab or a request holds the model."""
    weights: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def factory() -> Any:
        alive.append(sum(model() is not None for model in weights))
        model = random_model(len(weights))
        weights.append(weakref.ref(model))
        return build(TinyLoaded(model))

    bridge = EngineBridge(factory)
    await bridge.start()
    for turn in range(3):
        async with await bridge.submit(greedy(f"r{turn}", range(30), 4)) as events:
            while not isinstance(await events.get(), Finished):
                pass
        await bridge.exchange(factory, drain_s=1)
    await bridge.stop()
    assert alive == [0, 0, 0, 0]


async def test_when_neither_model_loads_nobody_serves_until_one_does(start: Start) -> None:
    """Liveness turns, since waiting will not help; another swap still can."""
    shelf = Shelf(names=("owl", "crow", "wren"))
    service = await start(catalogue=shelf)
    assert (await swap(service, model="owl"))[0] == 200
    shelf.broken = {"owl", "crow"}
    status, body = await swap(service, model="crow")
    assert (status, body["error"]["code"]) == (500, "swap_failed")
    async with service.session.get("/health/live") as response:
        assert response.status == 503
    assert (await ask(service))[0] == 503
    assert (await swap(service, model="wren"))[0] == 200
    assert (await ask(service))[0] == 200


async def test_an_unknown_model_disturbs_nobody(start: Start) -> None:
    """What cannot be found is a 400 before anything is drained."""
    service = await start(catalogue=Shelf())
    status, body = await swap(service, model="dodo")
    assert (status, body["error"]["code"]) == (400, "model_unusable")
    assert not service.engine.closed
    assert (await look(service))["last"] is None


async def test_a_second_swap_meanwhile_is_a_conflict(start: Start) -> None:
    """One at a time; the first one goes on even if its caller has gone."""
    shelf = Shelf()
    shelf.go.clear()
    service = await start(catalogue=shelf)
    status, body = await swap(service, model="owl", wait=False)
    assert (status, body["phase"]) == (202, "draining")
    await until_phase(service, lambda phase: phase == "loading")
    status, body = await swap(service, model="owl")
    assert (status, body["error"]["code"]) == (409, "swap_underway")
    async with service.session.get("/v1/models") as response:
        assert response.status == 503
    shelf.go.set()
    await until_phase(service, lambda phase: phase == "done")
    assert (await look(service))["model"] == "owl"


async def test_a_loss_after_a_swap_brings_the_new_model_back(start: Start) -> None:
    """Supervision holds: another engine is made with the factory that made the lost one."""
    shelf = Shelf()
    service = await start(catalogue=shelf)
    assert (await swap(service, model="owl"))[0] == 200
    engine = shelf.lives[-1]()
    assert engine is not None
    engine.script.crashes_after = 0
    del engine
    assert (await ask(service))[0] == 500
    async with asyncio.timeout(TIMEOUT_S):
        while len(shelf.lives) < 2 or service.bridge.health.state != "up":
            await asyncio.sleep(0.005)
    status, body = await ask(service)
    assert (status, body["model"]) == (200, "owl")


async def test_a_request_rendered_for_one_model_never_runs_on_another(start: Start) -> None:
    """B7: a prompt that took longer than the whole swap is refused, to be sent again."""
    service = await start(catalogue=Shelf())
    held, go = threading.Event(), threading.Event()
    render = service.engine.model.tokenizer.render

    def render_late(*given: Any, **options: Any) -> tuple[int, ...]:
        held.set()
        assert go.wait(TIMEOUT_S)
        return render(*given, **options)

    service.engine.model.tokenizer.render = render_late  # type: ignore[method-assign]
    asking = asyncio.create_task(ask(service))
    await asyncio.to_thread(held.wait, TIMEOUT_S)
    assert (await swap(service, model="owl"))[0] == 200
    go.set()
    assert (await asking)[0] == 503


@pytest.mark.parametrize("offered", (True, False))
async def test_a_request_has_a_model_loaded_only_where_that_is_offered(
    start: Start,
    offered: bool,
) -> None:
    """It is told to come back, and then answered; /v1/models lists what may be named so."""
    service = await start(catalogue=Shelf(serves_on_request=offered))
    async with service.session.get("/v1/models") as response:
        listed = [model["id"] for model in (await response.json())["data"]]
    assert listed == ([PARROT, "owl"] if offered else [PARROT])
    status, _ = await ask(service, "owl")
    assert status == (503 if offered else 404)
    if offered:
        await until_phase(service, lambda phase: phase == "done")
        assert (await ask(service, "owl"))[0] == 200


async def test_a_server_that_shuts_down_is_not_swapped(start: Start) -> None:
    """And a swap under way when it begins to gives up before it loads anything."""
    shelf = Shelf()
    service = await start(Script(holds_after=1), catalogue=shelf)
    async with service.post({**BODY, "stream": True}) as response:
        await response.content.readline()
        swapping = asyncio.create_task(swap(service, model="owl"))
        await until_phase(service, lambda phase: phase == "draining")
        draining = asyncio.create_task(service.bridge.drain(TIMEOUT_S))
        await asyncio.sleep(0)
        service.engine.release()
        await response.read()
    assert await draining
    status, _ = await swapping
    assert status == 500
    assert shelf.lives == []
    assert (await swap(service, model="owl"))[0] == 503
