"""The webhook URLs that this deployment allows: checked at submission and at delivery."""

from __future__ import annotations

from core.settings.loader import is_loopback
from core.settings.models import Settings
from schemas.callback_url import CallbackPolicy, policy_of


def callback_policy(settings: Settings) -> CallbackPolicy:
    """Return the policy: private addresses only if set, or while the ingress listens on loopback."""
    hooks = settings.webhooks
    private = hooks.allow_private if hooks.allow_private is not None else is_loopback(settings.ingress.host)
    return policy_of(private=private, ports=hooks.ports)
