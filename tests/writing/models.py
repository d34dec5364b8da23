"""The kinds of model that the shop has no use for."""

# ruff: noqa: DJ008

import uuid

import django
from django.db import models
from django.db.models.functions import Upper

from shop.models import Tenant


class Place(models.Model):
    """A multi-table parent."""

    tenant = models.ForeignKey(Tenant, models.CASCADE)
    name = models.CharField(max_length=40)


class Workshop(Place):
    """Its child: the tenant is a column of the parent's table."""

    benches = models.PositiveIntegerField(default=1)


class WorkshopProxy(Workshop):
    class Meta:
        proxy = True


class Tool(models.Model):
    """A key that SQLite stores as text, a value that the database computes, and no tenant of its own."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    workshop = models.ForeignKey(Workshop, models.CASCADE, null=True)
    label = models.CharField(max_length=40, default="")
    loud = models.GeneratedField(
        expression=Upper("label"), output_field=models.CharField(max_length=40), db_persist=True
    )
    friends = models.ManyToManyField("self")


class Bare(models.Model):
    """A model that no rule names."""

    name = models.CharField(max_length=40)


if django.VERSION >= (6, 1):

    class Drawer(models.Model):
        """Deleted by the database itself together with its tool."""

        tool = models.ForeignKey(Tool, models.DB_CASCADE)
