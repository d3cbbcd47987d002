"""URLs of the endpoints: `path("api/users/", include("otpd.contrib.django.urls"))`."""

from django.urls import path

from otpd.contrib.django.views import send_otp, verify_otp

urlpatterns = [
    path("send_otp/", send_otp, name="send_otp"),
    path("verify_otp/", verify_otp, name="verify_otp"),
]
