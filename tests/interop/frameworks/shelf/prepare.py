# mypy: ignore-errors
# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false
"""Make the database, its administrator and the folder of static files: ``python -m ...shelf.prepare``.

The name and the password are in DJANGO_SUPERUSER_USERNAME and DJANGO_SUPERUSER_PASSWORD.
"""

import os

import django
from django.core.management import call_command

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.interop.frameworks.shelf.settings")
django.setup()
call_command("migrate", run_syncdb=True, verbosity=0)
call_command("createsuperuser", interactive=False, email="", verbosity=0)
call_command("collectstatic", interactive=False, verbosity=0)
