"""What of a response is kept, and how it is put together again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.template.response import SimpleTemplateResponse
from django.utils.module_loading import import_string

from cacheadmin.results import settled
from cacheadmin.store.codec import refuse_once

DRF_RESPONSE: Final = "rest_framework.response.Response"


class Kept:
    """A response as it is cached: plain parts only, so that any serializer can store them."""

    @staticmethod
    def of(response: Any) -> dict[str, Any] | None:
        """Return what to store of a response or of plain data; None if it must not be kept."""
        if not isinstance(response, HttpResponseBase):
            refuse_once(response)
            return {"kind": "data", "data": settled(response)}
        if response.status_code != 200 or response.streaming:
            return None
        # A response of REST framework has no renderer before its view has finished: then its data are kept.
        is_data = hasattr(response, "data") and not hasattr(response, "accepted_renderer")
        if isinstance(response, SimpleTemplateResponse) and not is_data:
            response.render()  # may still set headers and cookies
        if response.cookies:
            return None
        directives = {d.strip().lower().split("=")[0] for d in response.get("Cache-Control", "").split(",")}
        if directives & {"private", "no-store"} or "*" in varies(response):
            return None
        headers = [(name, value) for name, value in response.items() if name.lower() != "x-cache"]
        if isinstance(response, SimpleTemplateResponse) and is_data:
            return {"kind": "drf", "data": response.data, "headers": headers}  # type: ignore[attr-defined]
        content, coding = bytes(getattr(response, "content", b"")), "utf-8"
        try:
            text = content.decode(coding)  # text, for JSON has no bytes
        except UnicodeDecodeError:  # a picture; every byte is a character there
            text = content.decode(coding := "latin-1")
        return {"kind": "http", "content": text, "coding": coding, "headers": headers}

    @staticmethod
    def again(kept: Mapping[str, Any]) -> Any:
        """Return the response, or the plain data, that was kept."""
        if kept["kind"] == "data":
            return kept["data"]
        is_drf = kept["kind"] == "drf"
        made = import_string(DRF_RESPONSE) if is_drf else HttpResponse
        response = made(kept["data"] if is_drf else kept["content"].encode(kept["coding"]))
        for name, value in kept["headers"]:
            response[name] = value
        return response


def varies(response: HttpResponseBase) -> tuple[str, ...]:
    """Return the names in a response's `Vary`, lower case, sorted."""
    return tuple(sorted({name.strip().lower() for name in response.get("Vary", "").split(",") if name.strip()}))
