"""Two models, as plain as the shop's are."""

from django.db import models


class Tenant(models.Model):
    """A shop."""

    name = models.CharField(max_length=100)

    class Meta:
        app_label = "app"

    def __str__(self) -> str:
        return self.name


class Item(models.Model):
    """A piece on a shelf. No constraint, so that rows of any tenant can be made."""

    tenant = models.ForeignKey(Tenant, models.DO_NOTHING, db_constraint=False)
    branch_id = models.IntegerField(default=0)
    sku = models.CharField(max_length=20)
    name = models.TextField()
    quantity = models.IntegerField(default=0)
    price = models.DecimalField(max_digits=10, decimal_places=2, default=0)

    class Meta:
        app_label = "app"

    def __str__(self) -> str:
        return self.name
