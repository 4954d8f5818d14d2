"""The project for servers of WSGI."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

__all__ = ["application"]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.benchmarks.project.settings")

application = get_wsgi_application()
