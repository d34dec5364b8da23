"""The admin pages. Importing this registers them with Django's default admin site.

Another AdminSite takes them by `site.register(Console, ConsoleAdmin)`.
"""

from .console import ConsoleAdmin

__all__ = ["ConsoleAdmin"]
