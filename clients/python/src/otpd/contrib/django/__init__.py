"""Views that send codes and check them by otpd, for Django REST Framework.

Add "otpd.contrib.django" to INSTALLED_APPS, say where otpd is in `OTPD = {...}`, and include
`otpd.contrib.django.urls`. All settings are told in docs/moving-from-django-cache.md.
"""
