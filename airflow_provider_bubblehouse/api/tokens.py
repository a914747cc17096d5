"""
Shop tokens: the one stored in the connection, or short-lived ones minted from a key id and a shared secret.

A shop token is an HS256 JWT whose ``sub`` is the shop slug, ``aud`` is ``BH`` and whose ``kid`` header names the
secret (https://app.bubblehouse.com/apidocs/calling/auth).
"""

from __future__ import annotations

import base64
import binascii
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import jwt

from airflow_provider_bubblehouse.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Callable

MINTED_LIFETIME = 600.0  # seconds; the vendor's own client uses 300, but a batch with its attempts takes longer
_BACKDATED = 30.0  # seconds by which our clock may be ahead: the API refuses a token from the future
_RENEW_BEFORE_END = 120.0  # seconds; more than a call takes with the default timeouts


class Tokens(Protocol):
    """The token for each call."""

    def current(self) -> str:
        """
        Return a token that is valid now.

        :raises PermanentError: if it has expired.
        """


class StoredToken:
    """
    The shop token stored in the connection.

    :param token: the token that Bubblehouse issued.
    :param shop: the shop slug that the token must belong to.
    :raises PermanentError: if it is malformed, or belongs to another shop.
    """

    def __init__(self, token: str, *, shop: str) -> None:
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise PermanentError(
                "Shop token (password) of the Airflow connection contains blanks or other characters that no token "
                "has; store only the token, without 'Bearer'."
            )
        claims = _unverified_claims(token)
        subject, expiry = claims.get("sub"), claims.get("exp")
        if isinstance(subject, str) and subject != shop:
            raise PermanentError(
                "Shop token (password) of the Airflow connection was issued for another shop or for a customer, not "
                "for its Shop slug (login); correct one of the two."
            )
        self._token = token
        self._expiry = float(expiry) if isinstance(expiry, int | float) else None

    def current(self) -> str:
        if self._expiry is not None and self._expiry <= time.time():
            raise PermanentError(
                f"Shop token (password) of the Airflow connection expired at {_utc(self._expiry)}; nothing was sent. "
                "Store a new token, or Key ID (key_id) and Shared Secret (shared_secret), which do not expire."
            )
        return self._token


class MintedTokens:
    """
    Tokens minted here, each valid for 10 minutes and replaced shortly before it expires.

    :param key_id: the id of the shared secret.
    :param shared_secret: the secret in base64, as the API console shows it.
    :param shop: the shop slug.
    :param mask: called with every new token, to mask it in logs.
    :raises PermanentError: if the secret is not base64.
    """

    def __init__(self, key_id: str, shared_secret: str, *, shop: str, mask: Callable[[str], None]) -> None:
        try:
            self._key = base64.b64decode(shared_secret, validate=True)
        except (binascii.Error, ValueError):
            self._key = b""
        if not self._key:
            raise PermanentError(
                "Shared Secret (shared_secret) of the Airflow connection is not base64; copy all of it from the API "
                "console."
            )
        self._key_id = key_id
        self._shop = shop
        self._mask = mask
        self._token = ""
        self._renew_at = 0.0
        self._lock = threading.Lock()  # lanes share these tokens

    def current(self) -> str:
        with self._lock:
            return self._current()

    def _current(self) -> str:
        now = time.time()
        if now >= self._renew_at:
            expiry = now + MINTED_LIFETIME
            token = jwt.encode(
                {"aud": "BH", "sub": self._shop, "iat": int(now - _BACKDATED), "exp": int(expiry)},
                self._key,
                algorithm="HS256",
                headers={"kid": self._key_id},
            )
            self._mask(token)
            self._token, self._renew_at = token, expiry - _RENEW_BEFORE_END
        return self._token


def _unverified_claims(token: str) -> dict[str, Any]:
    """Return the claims without verifying them, which only the API can do."""
    try:
        return jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return {}


def _utc(timestamp: float) -> str:
    try:
        return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "an impossible time"
