# docker build -t foundry .
#
# Two statically linked programs on nothing: no shell, no package manager, no libc to patch. Where no base image can be
# pulled, deploy/build-image makes the same image from programs built on the machine itself.

FROM rust:1.95-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends musl-tools \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN deploy/static-root /image

FROM scratch
COPY --from=build /image/root/ /
COPY --from=build --chown=65532:65532 /image/owned/ /

LABEL org.opencontainers.image.title="Foundry" \
      org.opencontainers.image.description="A universal artifact registry" \
      org.opencontainers.image.licenses="MIT"
# A container has an address of its own; what reaches it is decided outside.
ENV PATH=/usr/local/bin \
    HTTP_HOST=0.0.0.0 \
    FOUNDRY_STORAGE__DATA_DIR=/data
# A config.yaml that is mounted here is read.
WORKDIR /etc/foundry
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["registry-server", "healthcheck"]
ENTRYPOINT ["registry-server"]
