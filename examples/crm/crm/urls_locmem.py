"""The endpoints as they were."""

from django.urls import path

from users.locmem_views import send_otp, verify_otp

urlpatterns = [
    path("api/users/send_otp/", send_otp),
    path("api/users/verify_otp/", verify_otp),
]
