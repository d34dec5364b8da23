"""What became of a request to invalidate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cacheadmin.targets import Target

Source = Literal["code", "user", "command", "rule", "relay"]


@dataclass(frozen=True, slots=True)
class Invalidation:
    """What became of a request to invalidate."""

    targets: tuple[Target, ...]
    state: Literal["done", "deferred", "waiting", "failed"]
    """`done`: no reader is served the old value · `deferred`: delivered after the commit of the open transaction ·
    `waiting`: recorded until the server answers · `failed`: neither; the caller has to try again."""
    source: str = "code"
    name: str = ""
    places: int = 0
    """Places (alias, tenant) that were reached."""
    keys: int = 0
    """Keys deleted by name; the entries below an epoch are not counted, there may be any number of them."""
    took_ms: float = 0.0
    error: str = ""
    reason: str = ""
    """Why, in the words of whoever asked."""
    pending: tuple[Target, ...] = ()
    """What is not done yet."""
    identities: dict[str, str] = field(default_factory=dict)
    """Alias -> identity (hex) of the server it was delivered to."""
    is_stopped: bool = False
    """Whether somebody who watched ended it: nobody has to try again."""

    @property
    def is_done(self) -> bool:
        """Whether every reader is safe from the old values by now."""
        return self.state == "done"

    def __str__(self) -> str:
        what = ", ".join(map(str, self.targets[:3])) + ("…" if len(self.targets) > 3 else "")
        return f"{self.state}: {what}"
