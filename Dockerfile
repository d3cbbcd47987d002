# Builder and runtime are the same Debian release, so that the binary has the C library
# that it was linked with.
FROM rust:1.95-bookworm AS builder
WORKDIR /build
COPY Cargo.toml Cargo.lock build.rs sqlx.toml ./
COPY .sqlx ./.sqlx
COPY migrations ./migrations
COPY presets ./presets
COPY proto ./proto
COPY crates ./crates
COPY src ./src
# Not built here, but named in Cargo.toml.
COPY benches ./benches
COPY fuzz/Cargo.toml ./fuzz/Cargo.toml
# The caches keep compiled dependencies between builds. They are not part of the image,
# so the binary is copied out of them in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,sharing=locked \
    cargo build --release --locked \
    && cp target/release/otpd otpd

FROM debian:bookworm-slim
# Certificate authorities for providers over HTTPS and SMTP.
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /build/otpd /usr/local/bin/otpd
# Licences.
COPY LICENSE-APACHE LICENSE-MIT THIRD-PARTY.md /usr/share/doc/otpd/
# Default directory of the SQLite store and its keys.
RUN install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/otpd
WORKDIR /var/lib/otpd
# A number, because Kubernetes cannot verify that a user name is not root.
USER 10001:10001
ENV OTPD_LISTEN=0.0.0.0:50051
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["otpd", "health"]
ENTRYPOINT ["otpd"]
CMD ["serve"]
