"""The shop's settings with another look for the admin, the one that `THEME` names: unfold, grappelli or jazzmin."""

import os

from shop.settings import *  # noqa: F403
from shop.settings import INSTALLED_APPS, MIDDLEWARE, TEMPLATES

THEME = os.environ["THEME"]

INSTALLED_APPS = [THEME, *INSTALLED_APPS]
ROOT_URLCONF = "themed_urls"
# The looks bring inline scripts and styles of their own.
MIDDLEWARE = [name for name in MIDDLEWARE if not name.endswith("ContentSecurityPolicyMiddleware")]
TEMPLATES = [{**TEMPLATES[0], "OPTIONS": {**TEMPLATES[0]["OPTIONS"], "debug": False}}]
