"""The one table whose rows the scenarios write."""

from django.db import models


class Row(models.Model):
    """A row that one writer at a time makes newer."""

    tenant = models.IntegerField()
    version = models.IntegerField(default=1)

    def __str__(self) -> str:
        return f"{self.tenant}: {self.version}"
