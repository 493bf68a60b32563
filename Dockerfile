# The image of the service: one binary on a plain Debian, run by a user without rights.
FROM rust:1.92-bookworm AS build
WORKDIR /build
# librdkafka and OpenSSL are built from source: the image has gcc, g++, make and perl.
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --locked --profile dist --features object-store --bin swapstream \
    && install -D target/dist/swapstream /out/swapstream

FROM debian:bookworm-slim
# Certificates of public authorities, for brokers and object stores that speak TLS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home swapstream \
    && install -d -o swapstream -g swapstream /var/cache/swapstream
COPY --from=build /out/swapstream /usr/local/bin/swapstream
# Where artifacts of object stores are kept; mount a volume to keep them over restarts.
ENV XDG_CACHE_HOME=/var/cache
USER 10001:10001
WORKDIR /etc/swapstream
EXPOSE 9464
# No HEALTHCHECK: orchestrators ask /livez and /readyz themselves.
ENTRYPOINT ["/usr/local/bin/swapstream"]
CMD ["run"]
