"""Views for Django REST Framework that send and verify codes with otpd.

Add "otpd.contrib.django" to INSTALLED_APPS, set the address in `OTPD = {...}`, and include
`otpd.contrib.django.urls`. All settings are described in docs/moving-from-django-cache.md.
"""
