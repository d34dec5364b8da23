"""Whose an item is: its column says. Only cacheadmin reads this."""

from cacheadmin.tenancy import ForeignKeyTenancy


class Tenancy(ForeignKeyTenancy):
    """Rows name their tenant in the field `tenant`."""

    model = "app.Tenant"
