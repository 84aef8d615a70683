"""The parsers that read what others wrote, each with inputs to begin with and what must hold.

A target takes bytes, says whether they were taken, and raises only if the parser broke its word:
whatever the bytes are, a parser returns a value or the refusal that its docstring names.
"""

from __future__ import annotations

import random
import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dovecote_cache import Archive, ArchiveUnusable, _native
from dovecote_engine.errors import ModelError
from dovecote_engine.models.gguf.header import read_header
from dovecote_http.access.api_keys import BadKeys, parse_keys, presented_keys
from dovecote_http.access.guard import _host_name
from dovecote_http.answers.bodies import decode_chat, template_messages
from dovecote_http.answers.identity import find_agent, find_priority
from dovecote_http.answers.wishes import sampling_of
from dovecote_http.anthropic.body import decode_message
from dovecote_http.anthropic.translation import as_chat as chat_of_message
from dovecote_http.errors import ApiError
from dovecote_http.openai.completion_body import decode_completion, prompts_of
from dovecote_http.responses.body import decode_response
from dovecote_http.responses.translation import as_chat as chat_of_response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dovecote_http.answers.bodies import GenerationBody

__all__ = ["TARGETS", "mutations", "seeds"]

_ARCHIVE_HEAD = struct.Struct("<8sII IIIIQQQ8x 32s16s16x")
_MANIFEST = b'{"created": 1.5, "model": "m", "name": "n", "pinned": true, "ttl_s": 60.0}'


def chat(raw: bytes) -> bool:
    """Chat completions, as far as to the template."""
    with _refusals():
        body = decode_chat(raw)
        _read_wishes(body)
        template_messages(body)
        return True
    return False


def completion(raw: bytes) -> bool:
    """Text completions."""
    with _refusals():
        body = decode_completion(raw)
        _read_wishes(body)
        prompts_of(body)
        return True
    return False


def message(raw: bytes) -> bool:
    """Anthropic's messages."""
    with _refusals():
        template_messages(chat_of_message(decode_message(raw)))
        return True
    return False


def response(raw: bytes) -> bool:
    """OpenAI's responses."""
    with _refusals():
        template_messages(chat_of_response(decode_response(raw)))
        return True
    return False


def keys(raw: bytes) -> bool:
    """A file of API keys, and the headers that bring one."""
    text = raw.decode("utf-8", "surrogateescape")
    presented_keys({"Authorization": text, "x-api-key": text})
    _host_name(text)
    with suppress(BadKeys):
        return all(len(key.digest) == 32 for key in parse_keys(text))
    return False


def archive(raw: bytes) -> bool:
    """An agent's archive: header and manifest, with checksums that do not save the parser."""
    with (
        _file(_with_true_checksums(raw)) as path,
        suppress(ArchiveUnusable),
        Archive(path) as found,
    ):
        assert len(found.manifest.name) <= len(raw)
        for _ in found._blocks():
            pass
        return True
    return False


def gguf(raw: bytes) -> bool:
    """The header of a GGUF file."""
    with _file(raw) as path, suppress(ModelError):
        assert len(read_header(path).tensors) <= len(raw)
        return True
    return False


TARGETS: dict[str, Callable[[bytes], bool]] = {
    target.__name__: target for target in (chat, completion, message, response, keys, archive, gguf)
}

# ruff: noqa: ISC004 - a seed is one input in several lines
_SEEDS: dict[str, tuple[bytes, ...]] = {
    "chat": (
        b'{"messages":[{"role":"user","content":"Hi"}],"max_tokens":3,"stop":["a"],"seed":-1,'
        b'"temperature":0.5,"logit_bias":{"1":2},"stream":true,"stream_options":{},"user":"u"}',
        b'{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":'
        b'"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c",'
        b'"content":[{"type":"text","text":"x"}]}],"tools":[{"type":"function","function":{"name":'
        b'"f","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}}],'
        b'"tool_choice":"auto","response_format":{"type":"json_schema","json_schema":{"name":"s",'
        b'"schema":{"type":"object"}}},"logprobs":true,"top_logprobs":2}',
        b'{"messages":' + b"[" * 5000,
        b'{"tools":' + b'{"a":' * 5000,
    ),
    "completion": (
        b'{"prompt":["a","b"],"max_tokens":1,"echo":true,"best_of":1,"suffix":""}',
        b'{"prompt":[[1,2],[3]],"logprobs":3,"n":2}',
        b'{"prompt":[1,2,3],"cache_salt":"s","priority":"background"}',
    ),
    "message": (
        b'{"model":"m","max_tokens":4,"system":[{"type":"text","text":"s","cache_control":{"type":'
        b'"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":'
        b'"tool_result","tool_use_id":"t","content":"r"}]}],"metadata":{"user_id":"{}"}}',
    ),
    "response": (
        b'{"input":[{"role":"user","content":[{"type":"input_text","text":"x"}]},{"type":'
        b'"function_call","call_id":"c","name":"f","arguments":"{}"}],"instructions":"i",'
        b'"text":{"format":{"type":"text"}},"tools":[{"type":"function","name":"f"}]}',
        b'{"input":"x","previous_response_id":"resp_1","store":false}',
    ),
    "keys": (
        b"ada:0123456789abcdef\n# x\nops: 0123456789abcdeg admin\r\n",
        b"0123456789abcdef",
        b"a:sha256:" + b"0f" * 32,
        b"Bearer [::1]:80",
    ),
    "archive": (
        _ARCHIVE_HEAD.pack(
            b"DOVEAGNT", 1, 0, len(_MANIFEST), 0, 8, 0, 0, 64, 128 + len(_MANIFEST), b"f" * 32, b""
        )
        + _MANIFEST,
        _ARCHIVE_HEAD.pack(b"DOVEAGNT", 1, 0, 60000, 0, 8, 0, 0, 64, 60128, b"f" * 32, b"")
        + b"[" * 60000,
    ),
    "gguf": (
        b"GGUF" + struct.pack("<IQQ", 3, 1, 2)
        + struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<II", 4, 32)
        + struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 8, 1) + struct.pack("<Q", 1) + b"x"
        + struct.pack("<Q", 1) + b"t" + struct.pack("<IQIQ", 1, 4, 0, 0) + bytes(64),
        b"GGUF" + struct.pack("<IQQ", 3, 2**63, 2**63) + bytes(64),
    ),
}  # fmt: skip

_TOKENS = (
    b"null", b"true", b"-1", b"1e999", b"NaN", b"9" * 30, b'"\\ud800"', b'"\\u0000"', b"\xff",
    b"{}", b"[" * 3000, b'{"a":' * 3000, b"\x00" * 8, b"\xff" * 8, b"\r\n", b"admin",
)  # fmt: skip


def seeds(name: str) -> Sequence[bytes]:
    """Inputs from which others are made; those that once broke the parser are among them."""
    return _SEEDS[name]


def mutations(name: str, count: int, seed: int) -> Iterator[bytes]:
    """So many inputs near the seeds, the same ones for the same `seed`."""
    chance = random.Random(f"{name} {seed}")
    for _ in range(count):
        raw = bytearray(chance.choice(_SEEDS[name]))
        for _ in range(chance.randint(1, 6)):
            _mutate(raw, chance)
        yield bytes(raw)


def _mutate(raw: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(raw) + 1)
    match chance.randrange(5):
        case 0:
            raw[at : at + 1] = bytes([chance.randrange(256)])
        case 1:
            del raw[at : at + chance.randint(1, 16)]
        case 2:
            raw[at:at] = chance.choice(_TOKENS)
        case 3:
            raw[at : at + chance.randint(1, 8)] = chance.choice(_TOKENS)
        case _:
            start = chance.randrange(len(raw) + 1)
            raw[at:at] = raw[start : start + chance.randint(1, 64)]


def _read_wishes(body: GenerationBody) -> None:
    find_agent({}, body)
    find_priority({}, body)
    sampling_of(body)


class _Refusals:
    """Lets nothing out but what is no 400."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, ApiError) and error.status == 400


def _refusals() -> _Refusals:
    return _Refusals()


class _file:  # noqa: N801 - reads as the verb that it is used as
    """A file of those bytes, for the length of a block."""

    def __init__(self, raw: bytes) -> None:
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._file.write(raw)
        self._file.flush()

    def __enter__(self) -> Path:
        return Path(self._file.name)

    def __exit__(self, *_error: object) -> None:
        self._file.close()


def _with_true_checksums(raw: bytes) -> bytes:
    """The archive with checksums that fit, so that what they would catch gets through."""
    if len(raw) < _ARCHIVE_HEAD.size:
        return raw
    head, rest = bytearray(raw[: _ARCHIVE_HEAD.size]), raw[_ARCHIVE_HEAD.size :]
    (manifest_bytes,) = struct.unpack_from("<I", head, 16)
    struct.pack_into("<I", head, 20, _native.crc32c(rest[:manifest_bytes]))
    struct.pack_into("<Q", head, 48, len(raw))
    struct.pack_into("<I", head, 12, _native.crc32c(bytes(head[16:])))
    return bytes(head) + rest
