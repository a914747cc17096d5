"""
Shop tokens, made and checked as https://app.bubblehouse.com/apidocs/calling/auth describes them.

A shop token is an HS256 JWT: header ``kid`` names the shared secret, ``aud`` is ``BH``, ``sub`` is the shop slug;
``exp`` and ``iat`` are optional.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass, field
from typing import Any

import jwt

AUDIENCE = "BH"
SECRET_BYTES = 32  # what HS256 wants at least (RFC 7518, 3.2)


class InvalidTokenError(Exception):
    """A token that does not let in; its text is the ``message`` of the API's ``invalid_token``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopKey:
    """
    The one key of the sandbox's one shop.

    :param shop: the shop slug.
    :param key_id: the ``kid`` that names the secret.
    :param shared_secret: the secret in base64.
    :raises ValueError: if the secret is not base64, or too short.
    """

    shop: str
    key_id: str
    shared_secret: str = field(repr=False)

    def __post_init__(self) -> None:
        try:
            length = len(self._secret)
        except (binascii.Error, ValueError):
            length = 0
        if length < SECRET_BYTES:
            raise ValueError(f"The shared secret must be at least {SECRET_BYTES} bytes in base64.")

    @property
    def _secret(self) -> bytes:
        return base64.b64decode(self.shared_secret, validate=True)

    def mint(self, *, kid: str | None = None, **claims: Any) -> str:
        """
        Make a token, of a shop token's claims and without expiry.

        :param kid: another key id in the header.
        :param claims: other claims; one that is None is left out.
        """
        wanted = {"aud": AUDIENCE, "sub": self.shop} | claims
        present = {name: value for name, value in wanted.items() if value is not None}
        return jwt.encode(present, self._secret, algorithm="HS256", headers={"kid": kid or self.key_id})

    def check(self, authorization: str, shop: str) -> None:
        """
        Check the header that a call came with.

        :param authorization: the ``Authorization`` header.
        :param shop: the shop slug in the call's URL.
        :raises InvalidTokenError: if it does not let in.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise InvalidTokenError("There is no bearer token")
        try:
            if jwt.get_unverified_header(token.strip()).get("kid") != self.key_id:
                raise InvalidTokenError("The token's kid is not known")
            claims = jwt.decode(token.strip(), self._secret, algorithms=["HS256"], audience=AUDIENCE)
        except jwt.ExpiredSignatureError:
            raise InvalidTokenError("The token has expired") from None
        except jwt.ImmatureSignatureError:
            raise InvalidTokenError("The token is from the future") from None
        except jwt.InvalidAudienceError:
            raise InvalidTokenError("The token's aud is not BH") from None
        except jwt.InvalidTokenError:
            raise InvalidTokenError("The token is not valid") from None
        # Guess: a shop that does not exist is told like a token of another shop.
        if not claims.get("sub") == shop == self.shop:
            raise InvalidTokenError("The token is not for this shop")


def random_secret() -> str:
    """Return a new shared secret in base64."""
    return base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
