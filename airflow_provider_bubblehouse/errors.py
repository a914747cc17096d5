"""
The errors of this package, without Airflow: what every module below the operators raises.

``exceptions`` defines the classes that Airflow knows. Once it is imported, raising an error of this module raises its
subclass there, so that no caller has to translate an error and none can forget to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


class BubblehouseError(Exception):
    """
    Base of all errors of this package. Its text is one sentence that never holds a token or a customer's value.

    :param message: what happened and what to do.
    :param status: the HTTP status, None where no answer came.
    :param error_id: the ``id`` of the API's JSON error, such as ``rate_limit_exceeded``.
    :param attempts: how many calls failed for the same data, the last one included.
    :param retry_after: seconds that the answer asks to wait, from its ``Retry-After`` header.
    :param summary: the counts of the push that this error ended (see ``UpdateCustomersOperator``).
    """

    _raised_as: ClassVar[dict[type[BubblehouseError], type[BubblehouseError]]] = {}

    def __init_subclass__(cls, *, raised_for: type[BubblehouseError] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if raised_for is not None:
            cls._raised_as[raised_for] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Create the class that is raised for this one: a subclass, so that ``except`` clauses for both match."""
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
    A 5xx, or no complete response: the same data has to be pushed again, and the task is retried.

    Not an ``AirflowException``: with ``soft_fail`` a deferred sensor would skip on it, while a poking one fails.
    """


class PermanentError(BubblehouseError):
    """A retry cannot help."""


class RejectedError(PermanentError):
    """The API refused the data itself (400 or 422). It has processed the rows; they must not be pushed again."""


class RateLimitError(PermanentError):
    """429 ``rate_limit_exceeded``: the data was not processed, but a 4xx is not retried."""
