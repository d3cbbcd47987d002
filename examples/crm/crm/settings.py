"""The settings; CRM_ENDPOINTS chooses which endpoints there are: `otpd` or `locmem`."""

import os

ENDPOINTS = os.environ.get("CRM_ENDPOINTS", "otpd")

# It keeps no sessions and signs nothing.
SECRET_KEY = "an example"  # noqa: S105
ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
DEBUG = False
USE_TZ = True

INSTALLED_APPS = ["rest_framework", "otpd.contrib.django"]
ROOT_URLCONF = f"crm.urls_{ENDPOINTS}"
WSGI_APPLICATION = "crm.wsgi.application"
REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "UNAUTHENTICATED_USER": None,
}

# Where codes were kept: each worker process has a cache of its own.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

OTPD = {
    "ADDRESS": os.environ.get("CRM_OTPD", "127.0.0.1:50051").split(","),
    "REGION": "RU",
    "TRUSTED_PROXIES": int(os.environ.get("CRM_PROXIES", "0")),
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {
        "otpd": {"handlers": ["console"], "level": "INFO"},
        "users": {"handlers": ["console"], "level": "INFO"},
    },
}
