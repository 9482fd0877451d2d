# A static binary alone on an empty image, and the roots that TLS trusts: `ailurus`, or with `--target shop` the example `ailurus-shop`. Names are resolved by musl itself, from the
# /etc/hosts and /etc/resolv.conf that every container gets; nothing else is read.
#
#   docker build -t ailurus:0.2.0 .
#   docker build -t ailurus-shop:0.2.0 --target shop .
#   docker run -p 8080:8080 ailurus:0.2.0 serve --listen 0.0.0.0:8080     # HTTP listens on loopback by default
#   docker buildx build --platform linux/amd64,linux/arm64,linux/arm/v7 -t ailurus:0.2.0 .
#
# The compiler runs on the machine that builds, whatever the platform it builds for: no emulator.
FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95-bookworm AS build
ARG TARGETARCH
ARG TARGETVARIANT
WORKDIR /src
RUN case $TARGETARCH$TARGETVARIANT in \
        amd64*) echo x86_64-unknown-linux-musl ;; \
        arm64*) echo aarch64-unknown-linux-musl ;; \
        armv7) echo armv7-unknown-linux-musleabihf ;; \
        *) echo "no target is known for $TARGETARCH$TARGETVARIANT" >&2; exit 1 ;; \
    esac >/target && rustup target add "$(cat /target)"
COPY . .
# All is Rust: the linker that comes with the compiler links for every CPU (.cargo/config.toml).
RUN cargo build --release --locked --target "$(cat /target)" -p ailurus-cli --bin ailurus \
    && cp "target/$(cat /target)/release/ailurus" /ailurus
# The working directory of the user below, such as for the shop's store.
RUN mkdir -p /empty/data && chown -R 65532:65532 /empty/data

FROM build AS build-shop
RUN cargo build --release --locked --target "$(cat /target)" -p ailurus-shop --bin ailurus-shop \
    && cp "target/$(cat /target)/release/ailurus-shop" /ailurus-shop

FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=65532:65532 /empty/data /data
WORKDIR /data
USER 65532:65532

FROM base AS shop
COPY --from=build-shop /ailurus-shop /ailurus-shop
ENTRYPOINT ["/ailurus-shop"]

FROM base
COPY --from=build /ailurus /ailurus
ENTRYPOINT ["/ailurus"]
