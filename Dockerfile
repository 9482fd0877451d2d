# `ailurus` alone on an empty image: a static binary, and the roots that TLS trusts. Names are resolved by musl itself, from the
# /etc/hosts and /etc/resolv.conf that every container gets; nothing else is read.
#
#   docker build -t ailurus:0.1.0 .
#   docker run -p 8080:8080 ailurus:0.1.0 serve --listen 0.0.0.0:8080     # HTTP listens on loopback unless told
#   docker buildx build --platform linux/amd64,linux/arm64,linux/arm/v7 -t ailurus:0.1.0 .
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
# Files of the user below, where a command writes without being told where, such as the store of `serve`.
RUN mkdir -p /empty/data && chown -R 65532:65532 /empty/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /ailurus /ailurus
COPY --from=build --chown=65532:65532 /empty/data /data
WORKDIR /data
USER 65532:65532
ENTRYPOINT ["/ailurus"]
