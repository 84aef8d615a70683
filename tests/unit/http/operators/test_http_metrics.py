"""Metrics: everything counted, nothing labelled by what clients make up."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.http.lives import held
from tests.unit.http.scripted_engine import Counters, Pool, Script

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service, Start

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def samples(service: Service) -> Samples:
    async with service.session.get("/metrics") as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        text = await response.text()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_tokens_and_hits_are_counted(start: Start) -> None:
    """Prompt, cached and generated tokens add up over requests, streamed or not."""
    service = await start(Script(cached_tokens=1))
    for stream in (False, True):
        body = {"messages": [{"role": "user", "content": "Hi"}], "stream": stream}
        async with service.post(body) as response:
            await response.read()
    found = await samples(service)
    assert found["dovecote_prompt_tokens_total", ()] == 4
    assert found["dovecote_cached_tokens_total", ()] == 2
    assert found["dovecote_completion_tokens_total", ()] == 4
    assert found["dovecote_time_to_first_token_seconds_count", ()] == 2


async def test_requests_are_counted_by_route_and_status(service: Service) -> None:
    """Labels are patterns: what a client invents becomes "unmatched"."""
    for path in ("/v1/models", "/models", "/v1/models/a", "/models/b", "/x", "/y"):
        async with service.session.get(path):
            pass
    requests = {
        (labels["route"], labels["status"]): value
        for (name, pairs), value in (await samples(service)).items()
        if name == "dovecote_http_requests_total"
        for labels in (dict(pairs),)
    }
    assert requests == {
        ("/models", "200"): 2,
        ("/models/{id}", "404"): 2,
        ("unmatched", "404"): 2,
    }


async def test_a_stream_that_failed_is_not_counted_as_a_success(start: Start) -> None:
    """The status in metrics tells how the stream ended, which its header could not."""
    service = await start(Script(fails_after=1))
    async with service.post({"messages": [{"role": "user", "content": "Hi"}], "stream": True}) as r:
        await r.read()
    counted = await samples(service)
    labels = (("route", "/chat/completions"), ("status", "500"))
    assert counted["dovecote_http_requests_total", labels] == 1


async def test_every_number_of_the_pool_is_told(service: Service) -> None:
    """Each field of the pool's statistics appears once, misses by reason."""
    found = await samples(service)
    told = sorted(v for (name, _), v in found.items() if name.startswith("dovecote_pool_"))
    assert told == sorted(float(value) for value in asdict(Pool()).values())
    assert found["dovecote_pool_misses_total", (("reason", "checksum"),)] == Pool().miss_checksum


async def test_rows_and_queue_are_told(start: Start) -> None:
    """Running rows and waiting requests are gauges of the moment."""
    service = await start(Script(holds_after=0))
    async with service.post({"messages": [{"role": "user", "content": "Hi"}], "stream": True}) as r:
        await service.until(lambda: service.engine.status.running == 1)
        found = await samples(service)
        service.engine.release()
        await r.read()
    assert found["dovecote_running_rows", ()] == 1
    assert found["dovecote_queue_depth", ()] == 0
    assert found["dovecote_engine_up", ()] == 1
    assert found["dovecote_slab_bytes", ()] == 4096
    assert found["dovecote_engine_steps_total", ()] == 201
    assert found["dovecote_slab_losses_total", ()] == 205
    assert found["dovecote_resident_bytes", ()] > 2**20


async def test_metrics_outlive_the_engine(start: Start) -> None:
    """Without an engine the counters are still there, and engine_up is 0."""
    service = await start(Script(crashes_after=0))
    service.bridge._factory, go = held(service.bridge._factory)
    async with service.post():
        pass
    found = await samples(service)
    go.set()
    assert found["dovecote_engine_up", ()] == 0
    assert ("dovecote_running_rows", ()) not in found
    labels = (("route", "/chat/completions"), ("status", "500"))
    assert found["dovecote_http_requests_total", labels] == 1


async def test_hits_misses_and_times_are_told(start: Start) -> None:
    """Cached tokens by whose they are, prompts not found by reason, and each span of a start."""
    service = await start(Script(cached_tokens=7, own_tokens=4, missed="diverged"))
    for _ in range(2):
        async with service.post():
            pass
    found = await samples(service)
    assert found["dovecote_hit_tokens_total", (("source", "own"),)] == 8
    assert found["dovecote_hit_tokens_total", (("source", "shared"),)] == 6
    misses = {
        reason: found["dovecote_prompt_misses_total", (("reason", reason),)]
        for reason in ("new", "diverged", "evicted")
    }
    assert misses == {"new": 0, "diverged": 2, "evicted": 0}
    for name, span_s in (("queue", 0.0015), ("restore", 0.02), ("prefill", 0.3)):
        assert found[f"dovecote_{name}_seconds_count", ()] == 2
        assert found[f"dovecote_{name}_seconds_sum", ()] == pytest.approx(2 * span_s)
    for outcome in ("done", "rolled_back", "failed"):
        assert found["dovecote_model_swaps_total", (("outcome", outcome),)] == 0


async def test_every_counter_of_the_engine_is_told(service: Service) -> None:
    """Each under a name of its own: steps, batch size, encoding time, errors."""
    values = [
        value for (name, _), value in (await samples(service)).items() if "_bucket" not in name
    ]
    assert {float(value) for value in asdict(Counters()).values()} <= {*values}


async def test_labels_are_few(service: Service) -> None:
    """Nothing that a client makes up becomes a label: agents, models, ids, salts."""
    body = {
        "messages": [{"role": "user", "content": "my-text"}],
        "user": "my-agent",
        "cache_salt": "my-salt",
    }
    for fields in (body, {**body, "model": "my-model"}):
        async with service.post(fields, X_Request_ID="my-id"):
            pass
    async with service.session.get("/metrics") as response:
        assert "my-" not in await response.text()
