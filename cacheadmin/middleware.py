"""Makes the request's tenant the active one, so that what asks the context (queries, fragments) knows whose it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .tenancy import tenancy

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class TenantMiddleware:
    """
    Activate `Tenancy.from_request(request)` for the time of the request; nothing is active if it returns None.

    Put it below whatever the tenancy looks at (authentication, the site's own tenant middleware).
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer one request as its tenant."""
        if self.is_async:
            return self._answer(request)
        site = tenancy()
        with site.activate(site.from_request(request)):
            return self.get_response(request)

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        site = tenancy()
        tenant = await sync_to_async(site.from_request, thread_sensitive=True)(request)
        activation = await sync_to_async(site.activate, thread_sensitive=True)(tenant)  # may ask the database
        with activation:
            response = self.get_response(request)
            return response if isinstance(response, HttpResponseBase) else await response
