# Prometheus, its operator and the sidecar that reloads its configuration, in one image for the dev cluster.
FROM scratch
COPY bin /bin
COPY tmp /tmp
USER 65534:65534
WORKDIR /prometheus
ENTRYPOINT ["/bin/prometheus"]
