"""A server whose agents all work at one harbour, and so share a beginning."""

from __future__ import annotations

from dataclasses import dataclass

from openai import OpenAI

SYSTEM = "You keep the stores of a harbour and answer in one or two sentences. " * 6


@dataclass(frozen=True, slots=True)
class HarbourServer:
    """A server and what its agents have said."""

    url: str

    def turn(self, agent: str, text: str, tokens: int = 4) -> None:
        """One turn of an agent, with the system prompt that all share."""
        client = OpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0)
        client.chat.completions.create(
            model="SmolLM2-135M-Instruct",
            messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
            max_completion_tokens=tokens,
            temperature=0,
            user=agent,
        )
