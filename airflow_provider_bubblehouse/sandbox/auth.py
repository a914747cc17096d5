"""Shop tokens as the API checks them: HS256 JWTs with ``kid``, ``aud``, ``sub`` and, if given, ``iat`` and ``exp``."""

from __future__ import annotations

import base64
import time
from typing import Any

import jwt


def mint(key_id: str, shared_secret: str, claims: dict[str, Any]) -> str:
    """
    Return a token.

    :param key_id: the ``kid`` of its header.
    :param shared_secret: the secret in base64.
    :param claims: its claims.
    """
    return jwt.encode(claims, base64.b64decode(shared_secret), algorithm="HS256", headers={"kid": key_id})


def fault_of(token: str, *, key_id: str, shared_secret: str, shop: str) -> str | None:
    """
    Say what is wrong with a token.

    :param token: the token that came.
    :param key_id: the key that is known.
    :param shared_secret: its secret in base64.
    :param shop: the shop slug in the URL.
    :return: the API's message, None for a good token.
    """
    try:
        if jwt.get_unverified_header(token).get("kid") != key_id:
            return "The token names an unknown key"
        claims = jwt.decode(
            token,
            base64.b64decode(shared_secret),
            algorithms=["HS256"],
            audience="BH",
            options={"require": ["aud", "sub"]},
        )
    except jwt.ExpiredSignatureError:
        return "The token has expired"
    except jwt.PyJWTError:
        return "The token is invalid"
    return None if claims["sub"] == shop else "The token is for another shop"


def default_claims(shop: str) -> dict[str, Any]:
    """Return the claims of a shop token that does not expire."""
    return {"aud": "BH", "sub": shop, "iat": int(time.time()) - 60}
