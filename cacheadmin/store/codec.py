"""Values to bytes and back, as the alias' own OPTIONS say: django-redis' serializers and compressors, or Django's."""

from __future__ import annotations

import pickle
from collections.abc import Coroutine, Iterator
from io import IOBase
from typing import Any, Final

from django.core.cache.backends.redis import RedisSerializer
from django.utils.module_loading import import_string
from django_redis.compressors.base import BaseCompressor
from django_redis.compressors.identity import IdentityCompressor
from django_redis.serializers.pickle import PickleSerializer

from .. import envelope
from ..conf import cache_settings, config, secret_key
from ..exceptions import UncacheableValue

_LARGEST: Final = 2**63


def refuse_once(value: Any) -> None:
    """Raise UncacheableValue for what can be read only once, and for what is yet to be awaited."""
    if isinstance(value, Coroutine):
        value.close()  # nobody else will await it
        raise UncacheableValue("A coroutine is no value yet. Await it, or decorate the `async def` function itself.")
    if isinstance(value, (Iterator, IOBase)):
        raise UncacheableValue(
            f"A {type(value).__name__} can be read only once, so it cannot be cached. Return a list or bytes of it."
        )


class Codec:
    """How one alias turns values into payloads. Integers stay decimal digits, so that Redis can count on them."""

    def __init__(self, alias: str) -> None:
        settings = cache_settings(alias)
        options = settings.get("OPTIONS", {})
        self.serializer: Any
        self.compressor: BaseCompressor | None = None
        if settings["BACKEND"].startswith("django.core.cache.backends."):
            chosen = options.get("serializer") or RedisSerializer
            self.serializer = import_string(chosen)() if isinstance(chosen, str) else chosen()
        else:
            path = options.get("SERIALIZER", "django_redis.serializers.pickle.PickleSerializer")
            self.serializer = import_string(path)(options=options)
            if compressor := options.get("COMPRESSOR"):
                made = import_string(compressor)(options=options)
                self.compressor = None if type(made) is IdentityCompressor else made
        self._plain_pickle = type(self.serializer) is PickleSerializer and self.compressor is None
        self._key = secret_key().encode() if config().sign_values else b""

    def encode(self, value: Any) -> tuple[int, bytes]:
        """
        Return codec and payload.

        Raises:  UncacheableValue for what can be read only once, or what the serializer refuses.
        """
        if type(value) is int and -_LARGEST <= value < _LARGEST:
            return envelope.DIGITS, b"%d" % value
        refuse_once(value)
        try:
            payload = self.serializer.dumps(value)
        except Exception as error:  # whatever a serializer or a value's __reduce__ raises
            raise UncacheableValue(
                f"A {type(value).__name__} cannot be serialized for the cache: {type(error).__name__}: {error}"
            ) from error
        if isinstance(payload, int):
            payload = b"%d" % payload
        if self.compressor is not None:
            payload = self.compressor.compress(payload)
        return (envelope.SIGNED if self._key else envelope.VALUE), payload

    def seal(self, codec: int, proof: bytes, about: Any, payload: bytes) -> bytes:
        """Return what is stored: header and payload, signed if the settings say so; but digits run no code."""
        if codec == envelope.SIGNED:
            payload = envelope.sign(payload, proof, self._key)
        return envelope.seal(codec, proof, about, payload)

    def decode(self, codec: int, payload: memoryview, proof: bytes) -> Any:
        """
        Return the value of a payload whose header is valid.

        Raises:  whatever the serializer raises for bytes it does not know: the caller counts a miss.
        """
        if codec == envelope.DIGITS:
            return int(bytes(payload))
        if self._key or codec == envelope.SIGNED:
            verified = envelope.verified(payload, proof, self._key) if self._key and codec == envelope.SIGNED else None
            if verified is None:
                raise pickle.UnpicklingError("The payload is not signed with this site's key.")
            payload = verified
        elif codec != envelope.VALUE:
            raise pickle.UnpicklingError(f"There is no codec {codec}.")
        if self._plain_pickle:
            return pickle.loads(payload)  # noqa: S301 - our own value, whose header was just compared
        data = bytes(payload)
        if self.compressor is not None:
            data = self.compressor.decompress(data)
        return self.serializer.loads(data)
