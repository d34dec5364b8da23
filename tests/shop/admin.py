"""The shop's own admin pages. Staff bound to one tenant see that tenant's rows only."""

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin

from cacheadmin.admin.mixins import CacheInvalidationMixin, TenantCacheMixin

from . import models


class TenantBoundAdmin(admin.ModelAdmin):
    tenant_path = "tenant"

    def get_queryset(self, request):
        rows = super().get_queryset(request)
        if request.user.tenant_id is None:
            return rows
        return rows.filter(**{self.tenant_path: request.user.tenant_id})

    def get_list_filter(self, request):
        """Leave out the list of tenants for those who have one."""
        filters = super().get_list_filter(request)
        return filters if request.user.tenant_id is None else [name for name in filters if name != "tenant"]

    def get_readonly_fields(self, request, obj=None):
        """Keep a row with its tenant for those who have one."""
        fields = super().get_readonly_fields(request, obj)
        return fields if request.user.tenant_id is None or self.tenant_path != "tenant" else (*fields, "tenant")

    def formfield_for_manytomany(self, db_field, request, **kwargs):
        """Offer tags of one's own tenant only."""
        if request.user.tenant_id is not None:
            kwargs["queryset"] = db_field.remote_field.model.objects.filter(tenant=request.user.tenant_id)
        return super().formfield_for_manytomany(db_field, request, **kwargs)


@admin.register(models.Tenant)
class TenantAdmin(TenantCacheMixin, TenantBoundAdmin):
    tenant_path = "pk"
    list_display = ("name", "slug", "currency")
    search_fields = ("name", "slug")


@admin.register(models.InventoryItem)
class InventoryItemAdmin(CacheInvalidationMixin, TenantBoundAdmin):
    list_display = ("sku", "name", "tenant", "branch", "category", "price", "quantity", "status")
    list_filter = ("tenant", "status", "metal")
    list_select_related = ("tenant", "branch", "category")
    search_fields = ("sku", "name")
    autocomplete_fields = ("branch", "category", "supplier")
    filter_horizontal = ("tags",)
    readonly_fields = ("view_count", "updated")


class SaleLineInline(admin.TabularInline):
    model = models.SaleLine
    extra = 0
    raw_id_fields = ("item",)


@admin.register(models.Sale)
class SaleAdmin(TenantBoundAdmin):
    list_display = ("number", "tenant", "branch", "customer", "total", "created_at")
    list_filter = ("tenant",)
    list_select_related = ("tenant", "branch", "customer")
    search_fields = ("number",)
    raw_id_fields = ("branch", "customer")
    date_hierarchy = "created_at"
    inlines = (SaleLineInline,)


@admin.register(models.Branch, models.Category, models.Supplier, models.Customer, models.Tag)
class NamedAdmin(TenantBoundAdmin):
    list_display = ("name", "tenant")
    list_filter = ("tenant",)
    list_select_related = ("tenant",)
    search_fields = ("name",)


@admin.register(models.PricingRule, models.TenantSetting)
class PlainAdmin(TenantBoundAdmin):
    list_display = ("__str__", "tenant")
    list_filter = ("tenant",)
    list_select_related = ("tenant",)


@admin.register(models.LoyaltyAccount)
class LoyaltyAccountAdmin(TenantBoundAdmin):
    list_display = ("customer", "tenant", "points", "tier")
    list_filter = ("tenant", "tier")
    list_select_related = ("customer", "tenant")
    raw_id_fields = ("customer",)


@admin.register(models.RepairOrder)
class RepairOrderAdmin(TenantBoundAdmin):
    list_display = ("description", "tenant", "customer", "status", "estimate")
    list_filter = ("tenant", "status")
    list_select_related = ("tenant", "customer")
    raw_id_fields = ("customer",)


@admin.register(models.PurchaseOrder)
class PurchaseOrderAdmin(TenantBoundAdmin):
    list_display = ("supplier", "tenant", "status", "total", "ordered_at")
    list_filter = ("tenant", "status")
    list_select_related = ("supplier", "tenant")


@admin.register(models.GoldRate)
class GoldRateAdmin(admin.ModelAdmin):
    list_display = ("created_at", "karat", "price_per_gram", "currency")
    list_filter = ("karat",)


@admin.register(models.User)
class UserAdmin(DjangoUserAdmin):
    list_display = ("username", "tenant", "role", "is_staff", "is_superuser")
    list_filter = ("tenant", "role", "is_superuser")
    list_select_related = ("tenant",)
    fieldsets = (*DjangoUserAdmin.fieldsets, ("Shop", {"fields": ("tenant", "role")}))
