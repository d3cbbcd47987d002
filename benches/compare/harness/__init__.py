"""The comparison of otpd with what else could send and check codes; see ../README.md."""
