"""Signatures of the Standard Webhooks, against known ones and against the stock verifier."""

from __future__ import annotations

import base64
import time

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from standardwebhooks import Webhook

from core.settings.webhooks import WebhookSettings
from dispatcher.webhooks.signature import Signer

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SEED = bytes(range(32))
PRIVATE = f"whsk_{base64.b64encode(SEED).decode()}"


def signer(*secrets: str, tenants: tuple[str, ...] = ()) -> Signer:
    return Signer(WebhookSettings.model_validate({"secret": secrets, "tenant_secrets": tenants}))


def test_the_known_vector_of_the_specification() -> None:
    headers = signer(SECRET).headers(
        b'{"test": 2432232314}', delivery_id="msg_p5jXN8AQM9LWM0D4loKWxJek", owner=None, at_s=1_614_265_330
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@given(body=st.text(st.characters(exclude_categories=["Cs"])).map(lambda text: f'"{text!r}"'.encode()))
def test_the_stock_verifier_takes_every_body(body: bytes) -> None:
    headers = signer(SECRET).headers(body, delivery_id="TASK-1-x", owner="key-a", at_s=int(time.time()))
    Webhook(SECRET).verify(body, headers, json_parse=False)


def test_ed25519_is_verified_with_the_public_key() -> None:
    headers = signer(PRIVATE).headers(b"{}", delivery_id="id", owner=None, at_s=5)
    scheme, _, signature = headers["webhook-signature"].partition(",")
    public = Ed25519PrivateKey.from_private_bytes(SEED).public_key()
    public.verify(base64.b64decode(signature), b"id.5.{}")
    with pytest.raises(InvalidSignature):
        public.verify(base64.b64decode(signature), b"id.6.{}")
    assert scheme == "v1a"


def test_several_keys_sign_side_by_side_in_their_order() -> None:
    other = f"whsec_{base64.b64encode(b'o' * 24).decode()}"
    parts = signer(SECRET, PRIVATE, other).headers(b"{}", delivery_id="i", owner=None, at_s=5)["webhook-signature"]
    assert [part.partition(",")[0] for part in parts.split(" ")] == ["v1", "v1a", "v1"]


def test_a_tenant_with_keys_of_its_own_is_not_signed_with_those_of_all() -> None:
    made = signer(SECRET, tenants=(f"key-a={PRIVATE}", f"key-a={SECRET}", f"a=b={SECRET}"))
    schemes = {
        owner: [
            part.partition(",")[0]
            for part in made.headers(b"", delivery_id="i", owner=owner, at_s=5)["webhook-signature"].split()
        ]
        for owner in ("key-a", "a=b", "key-b", None)
    }
    assert schemes == {"key-a": ["v1a", "v1"], "a=b": ["v1"], "key-b": ["v1"], None: ["v1"]}


def test_without_keys_there_are_the_id_and_the_time() -> None:
    assert signer().headers(b"{}", delivery_id="i", owner="o", at_s=5) == {"webhook-id": "i", "webhook-timestamp": "5"}


@pytest.mark.parametrize(
    "key",
    ["whsec_AAAA", "whsec_!!!", f"whsec_{'A' * 100}", "whsk_AAAA", "secret", "key-a", "whpk_" + "A" * 43],
)
def test_a_wrong_key_is_refused_without_being_repeated(key: str) -> None:
    for field, value in (("secret", key), ("tenant_secrets", f"key-a={key}")):
        with pytest.raises(ValidationError) as refused:
            WebhookSettings.model_validate({field: [value]})
        assert key not in refused.value.errors()[0]["msg"]
