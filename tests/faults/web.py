"""The shop as a web server runs it, without the mechanism that the scenario runs without."""

import os
from importlib import import_module

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
if name := os.environ.get("FAULTS_WITHOUT"):
    import_module("faults.mechanisms").take_away(name)  # only now: it needs models
