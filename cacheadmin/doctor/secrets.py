"""Keep passwords of servers out of what a finding says."""

from __future__ import annotations

from cacheadmin.conf import cache_aliases, cache_settings

HIDDEN = "***"


def without_secrets(text: str) -> str:
    """Return a text without the user names and passwords that CACHES holds. Cost: none worth naming."""
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _secrets() -> set[str]:
    found: set[str] = set()
    for alias in cache_aliases():
        kept = cache_settings(alias)
        options = kept.get("OPTIONS") or {}
        pool = options.get("CONNECTION_POOL_KWARGS") or {}
        found |= {str(of.get(name) or "") for of in (options, pool) for name in ("PASSWORD", "password")}
        location = kept.get("LOCATION") or ""
        for url in [location] if isinstance(location, str) else map(str, location):
            for part in url.replace(";", ",").split(","):
                user = part.partition("//")[2].rpartition("@")[0]
                found |= {user, user.partition(":")[2]}
                found |= {pair[9:] for pair in part.partition("?")[2].split("&") if pair.startswith("password=")}
    # A short one would blot out half of each sentence and is no secret worth the name.
    return {secret for secret in found if len(secret) > 3}
