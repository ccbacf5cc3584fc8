"""A deterministic OpenAI-compatible upstream for tests and measurements; see README.md beside this file."""

from __future__ import annotations

from bench.simulator.answers import digest, text_for
from bench.simulator.behaviour import Behaviour, Fault
from bench.simulator.server import Simulator
from bench.simulator.stats import KeyStats, Stats

__all__ = ["Behaviour", "Fault", "KeyStats", "Simulator", "Stats", "digest", "text_for"]
