"""
The shop's tables. Every row but a gold rate belongs to one tenant; a sale's line does so through its sale.
"""

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils import timezone


class Tenant(models.Model):
    name = models.CharField(max_length=80)
    slug = models.SlugField(unique=True)
    currency = models.CharField(max_length=3, default="USD")

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name


class User(AbstractUser):
    class Role(models.TextChoices):
        OWNER = "owner"
        MANAGER = "manager"
        CLERK = "clerk"

    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True, blank=True, related_name="users")
    role = models.CharField(max_length=8, choices=Role.choices, default=Role.CLERK)


class TenantModel(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE)

    class Meta:
        abstract = True


class Branch(TenantModel):
    name = models.CharField(max_length=80)
    city = models.CharField(max_length=80)

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "branches"

    def __str__(self):
        return self.name


class Category(TenantModel):
    name = models.CharField(max_length=80)
    slug = models.SlugField()

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "categories"
        constraints = [models.UniqueConstraint(fields=["tenant", "slug"], name="shop_category_slug")]

    def __str__(self):
        return self.name


class Supplier(TenantModel):
    name = models.CharField(max_length=80)
    email = models.EmailField(blank=True)
    country = models.CharField(max_length=2, default="CH")

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name


class Tag(TenantModel):
    name = models.CharField(max_length=40)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="shop_tag_name")]

    def __str__(self):
        return self.name


class InventoryItem(TenantModel):
    class Metal(models.TextChoices):
        GOLD = "gold"
        WHITE_GOLD = "white gold"
        ROSE_GOLD = "rose gold"
        PLATINUM = "platinum"
        SILVER = "silver"

    class Status(models.TextChoices):
        IN_STOCK = "in stock"
        RESERVED = "reserved"
        SOLD_OUT = "sold out"

    branch = models.ForeignKey(Branch, models.CASCADE)
    category = models.ForeignKey(Category, models.CASCADE)
    supplier = models.ForeignKey(Supplier, models.SET_NULL, null=True, blank=True)
    sku = models.CharField("SKU", max_length=32)
    name = models.CharField(max_length=120)
    metal = models.CharField(max_length=12, choices=Metal.choices, default=Metal.GOLD)
    karat = models.PositiveSmallIntegerField(null=True, blank=True, help_text="Only gold has one.")
    weight = models.DecimalField(max_digits=8, decimal_places=2, help_text="Grams.")
    price = models.DecimalField(max_digits=12, decimal_places=2)
    quantity = models.PositiveIntegerField(default=0)
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.IN_STOCK)
    view_count = models.PositiveIntegerField(default=0)
    tags = models.ManyToManyField(Tag, blank=True, related_name="items")
    updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["sku"]
        constraints = [models.UniqueConstraint(fields=["tenant", "sku"], name="shop_item_sku")]
        indexes = [models.Index(fields=["tenant", "branch", "category"], name="shop_item_place")]

    def __str__(self):
        return f"{self.sku} {self.name}"


class Customer(TenantModel):
    name = models.CharField(max_length=80)
    email = models.EmailField(blank=True)
    joined = models.DateField(default=timezone.localdate)

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name


class LoyaltyAccount(TenantModel):
    class Tier(models.TextChoices):
        SILVER = "silver"
        GOLD = "gold"
        DIAMOND = "diamond"

    customer = models.OneToOneField(Customer, models.CASCADE, related_name="loyalty")
    points = models.PositiveIntegerField(default=0)
    tier = models.CharField(max_length=8, choices=Tier.choices, default=Tier.SILVER)

    def __str__(self):
        return f"{self.customer}: {self.points}"


class Sale(TenantModel):
    branch = models.ForeignKey(Branch, models.CASCADE)
    customer = models.ForeignKey(Customer, models.SET_NULL, null=True, blank=True)
    items = models.ManyToManyField(InventoryItem, through="SaleLine", related_name="sales")
    number = models.CharField(max_length=32)
    total = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["tenant", "created_at"], name="shop_sale_day")]

    def __str__(self):
        return self.number


class SaleLine(models.Model):
    sale = models.ForeignKey(Sale, models.CASCADE, related_name="lines")
    item = models.ForeignKey(InventoryItem, models.CASCADE, related_name="lines")
    quantity = models.PositiveIntegerField(default=1)
    price = models.DecimalField(max_digits=12, decimal_places=2, help_text="For one piece, when it was sold.")

    def __str__(self):
        return f"{self.quantity} × {self.item_id}"


class GoldRate(models.Model):
    """A market price. It belongs to no tenant: every shop sees the same one."""

    karat = models.PositiveSmallIntegerField()
    currency = models.CharField(max_length=3, default="USD")
    price_per_gram = models.DecimalField(max_digits=10, decimal_places=4)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["karat", "created_at"], name="shop_rate_latest")]

    def __str__(self):
        return f"{self.karat}k {self.price_per_gram} {self.currency}/g"


class PricingRule(TenantModel):
    category = models.ForeignKey(Category, models.CASCADE, null=True, blank=True, help_text="All when empty.")
    name = models.CharField(max_length=80)
    markup_percent = models.DecimalField(max_digits=5, decimal_places=2, default=20)
    labour_per_gram = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    is_active = models.BooleanField(default=True)

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name


class RepairOrder(TenantModel):
    class Status(models.TextChoices):
        RECEIVED = "received"
        IN_WORK = "in work"
        READY = "ready"
        COLLECTED = "collected"

    branch = models.ForeignKey(Branch, models.CASCADE)
    customer = models.ForeignKey(Customer, models.CASCADE)
    description = models.CharField(max_length=200)
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.RECEIVED)
    estimate = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self):
        return f"{self.description} ({self.status})"


class PurchaseOrder(TenantModel):
    class Status(models.TextChoices):
        ORDERED = "ordered"
        DELIVERED = "delivered"
        CANCELLED = "cancelled"

    branch = models.ForeignKey(Branch, models.CASCADE)
    supplier = models.ForeignKey(Supplier, models.CASCADE)
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.ORDERED)
    total = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    ordered_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-ordered_at"]

    def __str__(self):
        return f"{self.supplier} {self.ordered_at:%Y-%m-%d}"


class TenantSetting(TenantModel):
    key = models.CharField(max_length=60)
    value = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["key"]
        constraints = [models.UniqueConstraint(fields=["tenant", "key"], name="shop_setting_key")]

    def __str__(self):
        return f"{self.key} = {self.value}"
