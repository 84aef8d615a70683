"""Prompts of the functional tests: plain English that the embedded model answers firmly."""

from __future__ import annotations

SYSTEM = (
    "You are a careful assistant who answers in one or two short sentences. "
    "You know geography, history, arithmetic and cooking. You never invent facts. "
    "When you are asked for a list you give at most three items, each on a line of its own."
)

OPENINGS = {
    "atlas": "What is the capital of France, and on which river does it lie?",
    "cook": "Which ingredients do I need for a simple tomato soup?",
    "clio": "Who was the first president of the United States?",
    "euclid": "What is a prime number?",
    "flora": "Why do trees lose their leaves in autumn?",
}
FOLLOW_UP = "Thank you. Please say the same again in other words."
