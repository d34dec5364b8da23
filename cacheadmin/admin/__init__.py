"""The admin pages. Importing this registers them with Django's default admin site.

Another AdminSite takes them by `site.register(Console, ConsoleAdmin)` and
`site.register(InvalidationRule, InvalidationRuleAdmin)`.
"""

from .console import ConsoleAdmin
from .rules import InvalidationRuleAdmin

__all__ = ["ConsoleAdmin", "InvalidationRuleAdmin"]
