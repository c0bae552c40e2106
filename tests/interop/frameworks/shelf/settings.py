"""Settings; what the tests decide comes from the environment."""

import os
from pathlib import Path

#: The folder of the database, the uploads and the collected static files.
DATA = Path(os.environ["SHELF_DATA"])
DEBUG = os.environ.get("SHELF_DEBUG") == "1"

SECRET_KEY = "not a secret"
ALLOWED_HOSTS = ["gateways.test"]
# Debian's fastcgi_params send a Host without its port, so Django does not know its own origin.
CSRF_TRUSTED_ORIGINS = os.environ.get("SITE_ORIGINS", "").split()
ROOT_URLCONF = "tests.interop.frameworks.shelf.urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "tests.interop.frameworks.shelf.apps.Shelf",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA / "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Browsers complain of it where there is no TLS.
SECURE_CROSS_ORIGIN_OPENER_POLICY = None
USE_TZ = True
# Without a slash in front: below the mount, wherever that is.
STATIC_URL = os.environ.get("SHELF_STATIC", "static/")
STATIC_ROOT = DATA / "static"
MEDIA_URL = "media/"
MEDIA_ROOT = DATA / "media"
