"""What cached functions return in place of lazy querysets. Pure but for evaluating them."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.db.models.query import RawQuerySet


class ResultList(list[Any]):
    """
    The rows of a queryset that a cached function returned: a list, iterated again and again without a query.

    It answers `count()`, `exists()`, `first()` and `last()` as the queryset did; to filter further, filter inside the
    cached function.
    """

    def count(self, *value: Any) -> int:
        """Return the number of rows; with an argument how often it occurs, as lists do."""
        return super().count(*value) if value else len(self)

    def exists(self) -> bool:
        """Return whether there is any row."""
        return bool(self)

    def first(self) -> Any:
        """Return the first row, None if there is none."""
        return self[0] if self else None

    def last(self) -> Any:
        """Return the last row, None if there is none."""
        return self[-1] if self else None

    def all(self) -> ResultList:
        """Return itself."""
        return self

    def __getattr__(self, name: str) -> Any:
        if hasattr(QuerySet, name):
            raise AttributeError(
                f"A cached result is a list of rows and has no {name}(). "
                "Call it inside the cached function, on the queryset."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def settled(value: Any) -> Any:
    """Return the value with a lazy queryset evaluated, once. Cost: the query that it stands for."""
    return ResultList(value) if isinstance(value, (QuerySet, RawQuerySet)) else value
