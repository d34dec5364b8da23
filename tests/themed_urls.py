"""The shop's addresses, and those of the admin's look where it has any."""

from django.conf import settings
from django.urls import include, path

from shop.urls import urlpatterns as shops

urlpatterns = [*shops]
if settings.THEME == "grappelli":
    urlpatterns = [path("grappelli/", include("grappelli.urls")), *shops]
