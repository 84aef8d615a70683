"""What a caller hands to the engine, and what comes back: plain values, no behaviour.

Does not know HTTP, MLX or the pool. These are the only engine names that `dovecote_http` needs
beside the `Engine` itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]

Calls = Literal["none", "auto", "required"]
"""Whether an answer may call tools, or must."""

Priority = Literal["interactive", "background"]

Missed = Literal["new", "diverged", "evicted"]
"""Why an agent's history was not found to its end: there is none yet (or no agent), the prompt goes
another way than it, or the pool had no room for all of it."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a row chooses its next token; `bounds.py` has the bounds of each field.

    A row's logits go through these, in this order, those at their defaults left out:

    1. `repetition_penalty`: the logit of every token of prompt and answer so far, the whole of
       both, is divided by it if positive and multiplied if not (arXiv:1909.05858, as transformers
       has it).
    2. `presence_penalty`, once for each token that the answer has, and `frequency_penalty`, as
       often as it has it, are subtracted.
    3. `logit_bias` is added: pairs of token id and bias.
    4. Tokens that the request's form does not allow here are left out.
    5. `temperature` divides; 0 takes the likeliest token here, and the rest is unused.
    6. `top_k` likeliest tokens are kept (0: all),
    7. then those that reach `top_p` of what is left,
    8. then those at least `min_p` times as likely as the likeliest.
    9. One of them is drawn with the row's own random numbers, made from `seed`.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """What a JSON value has to be like. `text` is the schema, JSON itself.

    Strict: the request is refused if anything of the schema cannot be held to; else what cannot be
    is left to the model.
    """

    text: str
    is_strict: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that an answer may call. `parameters` is what its arguments are like, an object.

    The arguments of a strict one are held to that in every call, others only in calls that are
    required.
    """

    name: str
    parameters: JsonSchema


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What an answer is to look like; the default is any text.

    `schema`: its text is one JSON value like that. `tools` are those that it may call, or must call
    one of (`calls`), once if not `parallel`. A call that is required is the whole of the answer,
    but for its reasoning. The prompt has to describe the tools: see `ChatTokenizer.render`.

    `is_chat`: it is the assistant's turn of a chat. Its reasoning is told apart from its text, and
    its tokens are remembered for when the turn comes back in a prompt.

    `begun`: the text with which the prompt ends, and from which the answer goes on: it holds what
    follows alone. Then nothing can be asked of the whole of it, neither a schema nor a call.
    """

    schema: JsonSchema | None = None
    tools: tuple[Tool, ...] = ()
    calls: Calls = "none"
    parallel: bool = True
    is_chat: bool = False
    begun: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to compute.

    `prompt` holds token ids, at least one. `max_tokens` None means: up to the model's context.
    Requests of one agent run one at a time, in the order of their submission; those without an
    agent run as slots allow. A background request gets what interactive ones leave, and a small
    share in any case.

    What is cached under one `salt` is found under that salt alone: so tenants do not share.

    The text ends before the first of the `stop` strings. `choices` answers are computed from one
    prompt, in rows that start and are cancelled together. `top_logprobs` not None asks for each
    token's log probability and for that many of the likeliest beside it. `form` may bind the text
    and allow tool calls; stop strings count in the visible text alone.
    """

    id: str
    prompt: tuple[int, ...]
    max_tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    agent: str | None = None
    stop: tuple[str, ...] = ()
    choices: int = 1
    top_logprobs: int | None = None
    priority: Priority = "interactive"
    salt: bytes = b""
    form: AnswerForm = field(default_factory=AnswerForm)


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a request. `cached_tokens` of the `prompt_tokens` came from the pool, and
    `kept_tokens` of the others are there now that they were computed.

    The prompt counts once, however many choices there are; their sampled tokens are summed.
    `reasoning_tokens` of the `completion_tokens` were reasoning.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0
    kept_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time to the first token went, in seconds."""

    queue_s: float
    restore_s: float
    prefill_s: float


@dataclass(frozen=True, slots=True)
class Started:
    """The prompt is in the row and the first token is about to follow: everything that a response
    header may say is known.
    """

    request_id: str
    cached_tokens: int
    timing: Timing
    own_tokens: int = 0
    """Those of the cached ones that the agent's own chain has; the rest is others' work."""
    missed: Missed | None = None


@dataclass(frozen=True, slots=True)
class RankedToken:
    """A token, its bytes, and its logarithmic probability in the model's own distribution."""

    token: int
    content: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A sampled token, and the likeliest ones in its place, best first."""

    chosen: RankedToken
    top: tuple[RankedToken, ...]


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """What can be added to the call of that `index` in its choice: 0, 1, ... in order.

    `id` and `name` come with a call's first fragment and never again. `arguments` is a piece of
    JSON text.
    """

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One sampled token. `text` is what can be added to the text of its choice: it may be empty
    while a character is incomplete or a stop string may have begun, and then comes later.

    So can `reasoning` and `tool_calls` to theirs. `logprobs` are those of the tokens that these
    complete, if they were asked for.
    """

    request_id: str
    token: int
    text: str
    choice: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


@dataclass(frozen=True, slots=True)
class ChoiceFinished:
    """The last event of a choice while others of its request still run."""

    request_id: str
    choice: int
    reason: FinishReason
    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a request that ran: that of its only choice, or of the last to end.

    `text`, `reasoning`, `tool_calls` and `logprobs` are what was still held back. `usage` counts
    all choices. `stop` is the stop string that ended the choice, if one did.
    """

    request_id: str
    reason: FinishReason
    text: str
    usage: Usage
    choice: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a request that the engine gave up with all its choices; others go on.

    `retry_after_s` is set where nothing was wrong but time: it waited too long for a row.
    """

    request_id: str
    message: str
    retry_after_s: float | None = None


Event = Started | TokenEvent | ChoiceFinished | Finished | Failed
