"""The table of the codecs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from answers import ANSWER_TOKENS
from reading import SCORED_TOKENS

if TYPE_CHECKING:
    from agreement import Agreement
    from answers import Answers
    from recall import Recall

    from dovecote_cache import CodecName


@dataclass(frozen=True)
class Findings:
    """All that was measured. The lists of `reading` and `recall` begin with the reference."""

    bytes_a_token: dict[CodecName, float]
    answers: list[Answers]
    reading: dict[str, list[Agreement]]
    recall: dict[str, list[Recall]]


def table(findings: Findings) -> str:
    """Markdown: a column for what was never stored and one for each codec."""
    codecs = list(findings.bytes_a_token)
    lines = [
        ["", "never stored", *(f"`{codec}`" for codec in codecs)],
        ["---", *["---:"] * (1 + len(codecs))],
        ["bytes a token", "", *(f"{size:,.0f}" for size in findings.bytes_a_token.values())],
        *_error_lines(findings.answers),
        *_answer_lines(findings.answers),
        *(line for context, rows in findings.reading.items() for line in _reading(context, rows)),
        *(line for form, rows in findings.recall.items() for line in _recall(form, rows)),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _error_lines(answers: list[Answers]) -> list[list[str]]:
    return [
        ["K: relative RMS error", "", *(_percent(one.keys.relative_rms) for one in answers)],
        ["V: relative RMS error", "", *(_percent(one.values.relative_rms) for one in answers)],
        ["K: largest error", "", *(f"{one.keys.largest:.3g}" for one in answers)],
        ["V: largest error", "", *(f"{one.values.largest:.3g}" for one in answers)],
    ]


def _answer_lines(answers: list[Answers]) -> list[list[str]]:
    forced = [one.teacher_forced for one in answers]
    name = f"{answers[0].prompts} answers of up to {ANSWER_TOKENS} tokens"
    return [
        [f"{name}: the same", "", *(f"{one.equal}" for one in answers)],
        [
            "tokens of them before the first other one",
            "",
            *(_percent(one.before_divergence / one.tokens) for one in answers),
        ],
        [
            f"their {answers[0].tokens:,} tokens, teacher-forced: same top token",
            "",
            *(_percent(one.top1) for one in forced),
        ],
        ["divergence, nats a token", "", *(_nats(one) for one in forced)],
    ]


def _reading(context: str, rows: list[Agreement]) -> list[list[str]]:
    name = f"{SCORED_TOKENS} tokens after {context}"
    return [
        [f"{name}: perplexity", *(f"{row.perplexity:.3f}" for row in rows)],
        [f"{name}: same top token", "", *(_percent(row.top1) for row in rows[1:])],
        [f"{name}: divergence", "", *(_nats(row) for row in rows[1:])],
    ]


def _recall(form: str, rows: list[Recall]) -> list[list[str]]:
    return [
        [f"codes recalled of {rows[0].asked}, {form}", *(f"{row.right}" for row in rows)],
        ["log probability of a code", *(f"{row.mean_log_probability:.3f}" for row in rows)],
    ]


def _percent(share: float) -> str:
    """Three significant digits below one percent, two decimals above."""
    return f"{100 * share:.3g} %" if share < 0.01 else f"{100 * share:.2f} %"


def _nats(row: Agreement) -> str:
    """Below 1e-7 is how differently equal numbers are added up in two rows of one batch."""
    return f"{row.mean_divergence:.2g}" if row.mean_divergence >= 1e-7 else "< 1e-7"
