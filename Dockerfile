# Two targets: `server` (torch with CUDA, ChatTTS) and `operator` (no torch). Neither holds model weights.
#
#   docker build --target server .        or: make images [REGISTRY=registry.example/team]
#
# The dependency layer comes from the hashed locks in requirements/ and is built again only when they change;
# the code layer above it is one small wheel.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
# HOME and every cache lie in /tmp: the root file system is read-only in the cluster. Bytecode is compiled here.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
RUN groupadd --gid 10001 chattts \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin chattts \
 && python3 -m venv --without-pip /opt/venv

# Builds our one wheel. The tools (uv, hatchling) live in a cache mount: no image ever holds them.
FROM base AS wheel
# For the kernels of the engine on a CPU; what they are compiled with stays in this stage.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,id=chattts-tools,target=/opt/tools sh dev/cluster/images/build.sh wheel

FROM base AS operator-dependencies
COPY requirements/bootstrap.txt requirements/operator.txt dev/cluster/images/build.sh /opt/build/
RUN --mount=type=cache,id=chattts-tools,target=/opt/tools --mount=type=cache,id=uv,target=/var/cache/uv \
    sh /opt/build/build.sh operator
WORKDIR /tmp
EXPOSE 8080 9090
ENTRYPOINT ["python3", "-m", "chattts_operator"]
CMD ["run"]

FROM base AS server-dependencies
# Another CUDA (or CPU) build of torch: the address of its wheel index. The locked build comes from the usual index.
ARG TORCH_INDEX_URL=
COPY requirements/bootstrap.txt requirements/server.txt dev/cluster/images/build.sh /opt/build/
RUN --mount=type=cache,id=chattts-tools,target=/opt/tools --mount=type=cache,id=uv,target=/var/cache/uv \
    sh /opt/build/build.sh server "${TORCH_INDEX_URL}"
WORKDIR /tmp
EXPOSE 8000 9090
ENTRYPOINT ["python3", "-m", "chattts_server"]
CMD ["serve"]

# A change of our code builds `wheel` and the few steps below, nothing else.
FROM operator-dependencies AS operator
COPY --from=wheel /dist/ /opt/wheel/
RUN --mount=type=cache,id=chattts-tools,target=/opt/tools sh /opt/build/build.sh code chattts_server
USER 10001:10001

FROM server-dependencies AS server
COPY --from=wheel /dist/ /opt/wheel/
RUN --mount=type=cache,id=chattts-tools,target=/opt/tools sh /opt/build/build.sh code chattts_operator
USER 10001:10001
