"""
Shop tokens: one as stored in the connection, or short-lived ones minted from a key id and a shared secret.

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

MINTED_LIFETIME = 600.0  # seconds; the vendor's own client uses 300, a batch and its attempts take longer
_BACKDATED = 30.0  # seconds of clock difference that a token must survive: the API refuses one from the future
_RENEW_BEFORE_END = 120.0  # seconds; longer than one call can take with the default timeouts


class Tokens(Protocol):
    """Where a call gets its token from."""

    def current(self) -> str:
        """
        Return a token that is good now.

        :raises PermanentError: if there is none.
        """


class StoredToken:
    """
    The shop token that the connection holds.

    :param token: the token as Bubblehouse issued it.
    :param shop: the shop slug that the token must be for.
    :raises PermanentError: if it cannot be a token, or is one for another shop.
    """

    def __init__(self, token: str, *, shop: str) -> None:
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise PermanentError(
                "The shop token (Password of the Airflow connection) has blanks or characters that no token has; "
                "store the token alone, without 'Bearer'."
            )
        claims = _unverified_claims(token)
        subject, expiry = claims.get("sub"), claims.get("exp")
        if isinstance(subject, str) and subject != shop:
            raise PermanentError(
                "The shop token (Password of the Airflow connection) was issued for another shop or for a customer, "
                "not for the shop slug in Login; correct one of the two."
            )
        self._token = token
        self._expiry = float(expiry) if isinstance(expiry, int | float) else None

    def current(self) -> str:
        if self._expiry is not None and self._expiry <= time.time():
            raise PermanentError(
                f"The shop token (Password of the Airflow connection) expired at {_utc(self._expiry)}; "
                "nothing was sent. Store a new token, or Key ID and Shared Secret, which do not expire."
            )
        return self._token


class MintedTokens:
    """
    Tokens made here, each good for 10 minutes and used until shortly before it ends.

    :param key_id: names the shared secret.
    :param shared_secret: the secret in base64, as the API console shows it.
    :param shop: the shop slug.
    :param mask: called with every token made, so that it is kept out of logs.
    :raises PermanentError: if the secret is not base64.
    """

    def __init__(self, key_id: str, shared_secret: str, *, shop: str, mask: Callable[[str], None]) -> None:
        try:
            self._key = base64.b64decode(shared_secret, validate=True)
        except (binascii.Error, ValueError):
            self._key = b""
        if not self._key:
            raise PermanentError(
                "The shared secret of the Airflow connection is not base64; copy it whole from the API console."
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
    """Read the claims without the secret; only the API can verify them."""
    try:
        return jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return {}


def _utc(timestamp: float) -> str:
    try:
        return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "a time before all calendars"
