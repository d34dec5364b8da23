"""The one table whose rows the scenarios write."""

from django.db import models


class Row(models.Model):
    """A row that one writer at a time makes newer."""

    tenant = models.IntegerField()
    version = models.IntegerField(default=1)

    def __str__(self) -> str:
        return f"{self.tenant}: {self.version}"


# --- what the scenario `writes` writes --------------------------------------------------------------------------------


class Shelf(models.Model):
    """What things stand on."""

    tenant = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.tenant}: shelf {self.pk}"


class Label(models.Model):
    """The other side of a relation that Django keeps."""

    tenant = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.tenant}: label {self.pk}"


class Thing(models.Model):
    """A row with every kind of relation."""

    tenant = models.IntegerField()
    name = models.CharField(max_length=40, unique=True)
    size = models.IntegerField(default=0)
    shelf = models.ForeignKey(Shelf, models.CASCADE)
    spare = models.ForeignKey(Shelf, models.SET_NULL, null=True, related_name="spared")
    follows = models.ForeignKey("self", models.SET_NULL, null=True, related_name="followers")
    labels = models.ManyToManyField(Label, related_name="things")
    alike = models.ManyToManyField("self")
    makers = models.ManyToManyField(Label, through="Making", related_name="made")

    def __str__(self) -> str:
        return f"{self.tenant}: {self.name}"


class Special(Thing):
    """A thing with a table more."""

    shine = models.IntegerField(default=0)


class Seen(Thing):
    """A thing by another name."""

    class Meta:
        proxy = True


class Making(models.Model):
    """A relation with a value of its own."""

    thing = models.ForeignKey(Thing, models.CASCADE)
    maker = models.ForeignKey(Label, models.CASCADE)
    year = models.IntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.thing_id} by {self.maker_id}"


class Mark(models.Model):
    """What goes with its thing: by the database's own hand, where Django lets it."""

    thing = models.ForeignKey(Thing, getattr(models, "DB_CASCADE", models.CASCADE))
    text = models.CharField(max_length=40, default="")

    def __str__(self) -> str:
        return f"{self.thing_id}: {self.text}"
