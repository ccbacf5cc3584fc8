"""Ports for tests."""

from __future__ import annotations

from compose.local.ports import free_port, is_free

__all__ = ["free_port", "is_free"]
