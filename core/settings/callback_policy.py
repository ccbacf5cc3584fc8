"""Which callbacks this deployment allows: asked at submit and whenever one is made."""

from __future__ import annotations

from core.settings.loader import is_loopback
from core.settings.models import Settings
from schemas.callback_url import CallbackPolicy, policy


def callback_policy(settings: Settings) -> CallbackPolicy:
    """Return the rules: private addresses only when that is set, or while nobody else can reach the ingress."""
    hooks = settings.webhooks
    private = hooks.allow_private if hooks.allow_private is not None else is_loopback(settings.ingress.host)
    return policy(private=private, ports=hooks.ports)
