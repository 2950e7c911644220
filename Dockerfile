# One static binary, nobody's root, and nothing else: no shell. By itself it is
# the MCP server on standard input and output; another command takes its place:
#
#   docker run -i --rm -v enlist-data:/data -v enlist-config:/config IMAGE
#   docker run -p 127.0.0.1:8421:8421 -v enlist-data:/data -v enlist-config:/config IMAGE mcp --http 0.0.0.0:8421 --behind-proxy
#   docker run -p 8420:8420 -v enlist-data:/data IMAGE gateway --listen 0.0.0.0:8420
#
# The second speaks plain HTTP, to this machine alone: Docker is the proxy, and
# publishes the port at 127.0.0.1. Beyond it, give it --tls-cert and --tls-key.
#
# There is no HEALTHCHECK: it would have to know which of them runs, and over
# standard input there is nothing to ask.
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
# With .git, from which Go takes the version.
COPY . .
ARG TARGETOS
ARG TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags="-s -w" -o /out/enlist ./cmd/enlist
RUN mkdir -m 0700 -p /out/data /out/config

FROM scratch
LABEL io.modelcontextprotocol.server.name="io.github.enlist-mcp/enlist" \
      org.opencontainers.image.source="https://github.com/enlist-mcp/enlist" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/LICENSE /src/NOTICE /
COPY --from=build /out/enlist /usr/local/bin/enlist
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build --chown=65532:65532 /out/config /config
# There is no keyring here: what is stored is encrypted, in a file. The key to
# it lies apart, so that a copy of the one volume does not open it.
ENV ENLIST_HOME=/data XDG_CONFIG_HOME=/config ENLIST_STORE=file TMPDIR=/data
VOLUME ["/data", "/config"]
USER 65532:65532
EXPOSE 8420 8421
ENTRYPOINT ["/usr/local/bin/enlist"]
CMD ["mcp"]
