"""The kinds of model that the shop has no use for."""

# ruff: noqa: DJ008

import uuid

import django
from django.db import connections, models
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


class Article(models.Model):
    """A parent that is not the first of its child."""

    article_id = models.AutoField(primary_key=True)
    title = models.CharField(max_length=40, db_column="c0")


class Review(Workshop, Article):
    """A child of two parents, and the third in its line: its key is that of one of them."""


class Shelf(models.Model):
    """A key of two columns, the tenant one of them; a reference that the database does not watch."""

    pk = models.CompositePrimaryKey("tenant", "number")
    tenant = models.ForeignKey(Tenant, models.CASCADE)
    number = models.IntegerField()
    tool = models.ForeignKey(Tool, models.DO_NOTHING, null=True, db_constraint=False)


class Label(models.Model):
    """Deleted by the database itself, as far as Django knows by nobody; its reference may lead nowhere."""

    workshop = models.ForeignKey(Workshop, models.DO_NOTHING)
    place = models.ForeignKey(Place, models.CASCADE, db_constraint=False, related_name="+")
    text = models.CharField(max_length=40, unique=True)
    price = models.DecimalField(max_digits=8, decimal_places=2, default=0)


class NumberField(models.IntegerField):
    """Takes the next number from a table when a row is saved."""

    def pre_save(self, model_instance, add):
        with connections["default"].cursor() as cursor:
            cursor.execute("UPDATE writing_bare SET name = 'taken'")
        return 7


class Bill(models.Model):
    number = NumberField(default=0)


class Title(models.Model):
    """A view that its tests make."""

    title = models.CharField(max_length=40, primary_key=True)
    count = models.IntegerField()

    class Meta:
        managed = False


class Bare(models.Model):
    """A model that no rule names."""

    name = models.CharField(max_length=40)


if django.VERSION >= (6, 1):

    class Drawer(models.Model):
        """Deleted by the database itself together with its tool."""

        tool = models.ForeignKey(Tool, models.DB_CASCADE)
