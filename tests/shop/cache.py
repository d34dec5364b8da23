"""Whose request, row and console this is: the shop's tenancy, named in `CACHEADMIN["TENANCY"]`."""

import re

from cacheadmin.tenancy import EVERYONE, ForeignKeyTenancy

from .models import SaleLine, Tenant

SHOP_PATH = re.compile(r"^/shops/(?P<slug>[-\w]+)/")


class Tenancy(ForeignKeyTenancy):
    """Rows name their tenant in the field `tenant`; a request belongs to the user's tenant, else to the path's."""

    model = "shop.Tenant"

    def from_request(self, request):
        """Return the tenant of the logged-in user, else the one whose slug is in `/shops/<slug>/`, else None."""
        bound_to = getattr(getattr(request, "user", None), "tenant_id", None)
        if bound_to is not None:
            return str(bound_to)
        if match := SHOP_PATH.match(request.path_info):
            pk = Tenant.objects.filter(slug=match["slug"]).values_list("pk", flat=True).first()
            return None if pk is None else str(pk)
        return None

    def from_instance(self, instance):
        """Return the row's tenant; a line of a sale belongs to the sale's."""
        return super().from_instance(instance.sale if isinstance(instance, SaleLine) else instance)

    def allowed(self, user):
        """Return the user's own tenant, every tenant for those who may see all, none for other users."""
        if user.has_perm("cacheadmin.see_all_tenants"):
            return EVERYONE
        bound_to = getattr(user, "tenant_id", None)
        return () if bound_to is None else (str(bound_to),)
