"""`{% load cacheadmin_admin %}`: what the console's own templates use. `{% load cacheadmin %}` is for sites."""

from __future__ import annotations

from django import template
from django.apps import apps

# Django's engine imports the libraries of every app, also on a site without the admin, which has no console.
if apps.is_installed("django.contrib.admin"):
    from cacheadmin.admin.tags import register
else:
    register = template.Library()
