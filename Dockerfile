# The gateway in an image of its programs and nothing else. It needs no Node: the pages are committed.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /out/bin/ ./cmd/coven-gateway ./cmd/coven-admin
RUN mkdir -p /out/data /out/tmp && cp deploy/docker/gateway.yaml /out/data/

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/bin/ /usr/bin/
COPY --from=build --chown=65532:65532 /out/tmp /tmp
COPY --from=build --chown=65532:65532 /out/data /data
ENV PATH=/usr/bin HOME=/data COVEN_CONFIG=/data/gateway.yaml
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 50051 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/usr/bin/coven-gateway", "health"]
ENTRYPOINT ["/usr/bin/coven-gateway"]
CMD ["serve"]
