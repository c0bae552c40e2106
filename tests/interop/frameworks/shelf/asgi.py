# mypy: ignore-errors
# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false
"""As ``startproject`` writes it, with the static files, and with an event loop that Django can use."""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

from gateways.asgi import from_asgi

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.interop.frameworks.shelf.settings")

application = ASGIStaticFilesHandler(get_asgi_application())
app = from_asgi(application, loop="asyncio")
