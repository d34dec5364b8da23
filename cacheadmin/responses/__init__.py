"""Cached views: whose a request is, what may be kept of its response, and how it is put together again."""

from cacheadmin.responses.views import CachedView, cache_api_response

__all__ = ["CachedView", "cache_api_response"]
