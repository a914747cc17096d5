"""
The errors that every module below the operators raises, without Airflow.

``exceptions`` defines their Airflow subclasses. Once it is imported, creating an error of this module creates its
subclass there, so no caller has to convert errors, or can forget to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


class BubblehouseError(Exception):
    """
    Base of all errors of this package. The message never contains a token or a customer's value.

    :param message: what happened, where, and what to do.
    :param status: the HTTP status; None if there was no answer.
    :param error_id: the ``id`` of the API's JSON error, such as ``rate_limit_exceeded``.
    :param attempts: how many calls failed for the same data, including the last one.
    :param retry_after: seconds to wait, from the ``Retry-After`` header of the answer.
    :param summary: the counts of the push that failed (see ``UpdateCustomersOperator``).
    """

    _raised_as: ClassVar[dict[type[BubblehouseError], type[BubblehouseError]]] = {}

    def __init_subclass__(cls, *, raised_for: type[BubblehouseError] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if raised_for is not None:
            cls._raised_as[raised_for] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Create the Airflow subclass, which ``except`` clauses for either class catch."""
        return super().__new__(cls._raised_as.get(cls, cls), *args, **kwargs)  # type: ignore[return-value]

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        error_id: str | None = None,
        attempts: int = 0,
        retry_after: float | None = None,
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_id = error_id
        self.attempts = attempts
        self.retry_after = retry_after
        self.summary = summary


class BubblehouseTransientError(BubblehouseError):
    """
    A 5xx, or no complete response. The same data has to be sent again, and Airflow retries the task.

    Not an ``AirflowException``: with ``soft_fail``, a deferred sensor would skip on one, and a poking one would fail.
    """


class PermanentError(BubblehouseError):
    """An error that a retry cannot fix."""


class RejectedError(PermanentError):
    """The API rejected the data (400 or 422). It has processed the rows, so they must not be sent again."""


class RateLimitError(PermanentError):
    """The rate limit was exceeded (429). The rows were not processed, but a 4xx is not retried."""
