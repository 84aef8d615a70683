"""Dovecote's engine: continuous batching on MLX over KV caches that live in a pool of blocks.

The names that need MLX are imported at their first use: who only wants the requests, or has still
to put a BLAS behind MLX, imports this package without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from dovecote_engine.agents.agent import AgentChanges, AgentView
from dovecote_engine.errors import (
    AgentBusy,
    AgentError,
    AgentExists,
    BadArchive,
    BadRequest,
    ContextExceeded,
    Draining,
    EngineError,
    ModelError,
    NothingCached,
    Overloaded,
    PinsExhausted,
    Refused,
    UnknownAgent,
)
from dovecote_engine.options import EngineOptions
from dovecote_engine.request import (
    AnswerForm,
    ChoiceFinished,
    Event,
    Failed,
    Finished,
    FinishReason,
    JsonSchema,
    RankedToken,
    Request,
    Sampling,
    Started,
    Timing,
    TokenEvent,
    TokenLogprobs,
    Tool,
    ToolCallDelta,
    Usage,
)

if TYPE_CHECKING:
    from dovecote_engine.agents.agents import Agents
    from dovecote_engine.counters import Counters
    from dovecote_engine.engine import Engine, EngineStatus, leave_thread
    from dovecote_engine.models.loader import LoadedModel, load_model, model_name
    from dovecote_engine.served import ServedModel
    from dovecote_engine.text.tokenizer import ChatTokenizer

__all__ = [
    "AgentBusy",
    "AgentChanges",
    "AgentError",
    "AgentExists",
    "AgentView",
    "Agents",
    "AnswerForm",
    "BadArchive",
    "BadRequest",
    "ChatTokenizer",
    "ChoiceFinished",
    "ContextExceeded",
    "Counters",
    "Draining",
    "Engine",
    "EngineError",
    "EngineOptions",
    "EngineStatus",
    "Event",
    "Failed",
    "FinishReason",
    "Finished",
    "JsonSchema",
    "LoadedModel",
    "ModelError",
    "NothingCached",
    "Overloaded",
    "PinsExhausted",
    "RankedToken",
    "Refused",
    "Request",
    "Sampling",
    "ServedModel",
    "Started",
    "Timing",
    "TokenEvent",
    "TokenLogprobs",
    "Tool",
    "ToolCallDelta",
    "UnknownAgent",
    "Usage",
    "leave_thread",
    "load_model",
    "model_name",
]

_MODULE_OF = {
    "Agents": "agents.agents",
    "ChatTokenizer": "text.tokenizer",
    "Counters": "counters",
    "Engine": "engine",
    "EngineStatus": "engine",
    "leave_thread": "engine",
    "LoadedModel": "models.loader",
    "ServedModel": "served",
    "load_model": "models.loader",
    "model_name": "models.loader",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(name)
    return getattr(import_module(f"dovecote_engine.{_MODULE_OF[name]}"), name)
