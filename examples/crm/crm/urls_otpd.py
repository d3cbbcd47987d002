"""The endpoints, with otpd behind them."""

from django.urls import include, path

urlpatterns = [path("api/users/", include("otpd.contrib.django.urls"))]
