"""
Encryption of what a trigger stores, with a key derived from the secret of its Airflow connection.

Airflow 3 stores the arguments of a trigger as plain JSON, and its own Fernet key may be missing on a worker. The secret
of the Bubblehouse connection is known to worker and triggerer alike, and to nobody who can only read the database.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError, BubblehouseTransientError

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

    from airflow_provider_bubblehouse.airflow_compat import Connection

_PURPOSE = b"airflow-provider-bubblehouse trigger"  # so that the key differs from one derived for another purpose


def encrypt(value: Any, stored: Connection) -> str:
    """
    Encrypt a value of JSON types.

    :param value: the value.
    :param stored: the Airflow connection whose secret protects it.
    :raises BubblehousePermanentError: if the connection has no secret.
    """
    import msgspec

    return _fernet(stored).encrypt(msgspec.json.encode(value)).decode()


def decrypt(text: str, stored: Connection) -> Any:
    """
    Decrypt a value.

    :param text: the result of ``encrypt``.
    :param stored: the Airflow connection.
    :raises BubblehouseTransientError: if the secret of the connection has changed.
    """
    import msgspec
    from cryptography.fernet import InvalidToken

    try:
        return msgspec.json.decode(_fernet(stored).decrypt(text))
    except InvalidToken:
        raise BubblehouseTransientError(
            "The trigger cannot decrypt the customers that it waits for: Shop token (password) or Shared Secret "
            "(shared_secret) of the Airflow connection changed while the task was deferred. A retry of the task uses "
            "the new one."
        ) from None


def _fernet(stored: Connection) -> Fernet:
    from cryptography.fernet import Fernet

    secret = (stored.password or stored.extra_dejson.get("shared_secret") or "").strip()
    if not secret:
        raise BubblehousePermanentError(
            "The Airflow connection has no credentials; set the Shop token (password), or both Key ID (key_id) and "
            "Shared Secret (shared_secret)."
        )
    key = hashlib.blake2b(secret.encode(), digest_size=32, key=_PURPOSE).digest()
    return Fernet(base64.urlsafe_b64encode(key))
