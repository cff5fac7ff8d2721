# docker build -t event-tracker .
# docker run -p 127.0.0.1:8080:8080 -e INSECURE_OPEN=true -e ALLOWED_HOSTS=localhost -v tracker:/data event-tracker
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# --build-arg COMMIT=$(git rev-parse HEAD): the commit that /healthz/deps shows.
ARG COMMIT=
RUN cargo build --release --locked --bin event-tracker

FROM debian:bookworm-slim
# CA certificates for TLS to managed stores; everything else is in the binary.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --home-dir /data --no-create-home tracker \
 && install -d -o tracker -g tracker -m 700 /data
COPY --from=build /src/target/release/event-tracker /usr/local/bin/event-tracker
USER tracker
# The journal, and SQLite if DATABASE_URL is not set. One container per volume: the journal is locked.
VOLUME /data
ENV DATA_DIR=/data LISTEN=0.0.0.0:8080
EXPOSE 8080
# The image has no curl; bash speaks TCP. `live`, not `ready`: an unreachable store must not restart the tracker.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["bash", "-c", "exec 3<>\"/dev/tcp/127.0.0.1/${LISTEN##*:}\" && printf 'GET /healthz/live HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r -t 2 _ status _ <&3 && [ \"$status\" = 200 ]"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["event-tracker"]
CMD ["serve"]
