"""A second admin site, with the console registered on it."""

from django.contrib.admin import AdminSite
from django.urls import path

from cacheadmin.admin import ConsoleAdmin
from cacheadmin.models import Console

site = AdminSite(name="back")
site.register(Console, ConsoleAdmin)

urlpatterns = [path("back/", site.urls)]
