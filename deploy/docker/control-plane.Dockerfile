# syntax=docker/dockerfile:1
# The control plane: gRPC, REST, the front door and the console.
#
#     docker build -f deploy/docker/control-plane.Dockerfile -t footlights/control-plane .
#
# Linted with hadolint; the steps of its first stage have been run by hand. Not yet built by an engine.
# Pin it for a release: --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:…

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Without pip: nothing is installed at run time.
RUN python -m venv --without-pip /opt/footlights
WORKDIR /source
# What Footlights is tested with, each file by its hash, and only wheels: nothing is compiled, nothing is resolved anew.
COPY requirements requirements
RUN pip install --require-hashes --only-binary=:all: -r requirements/build.txt \
 && pip --python /opt/footlights/bin/python install --require-hashes --only-binary=:all: -r requirements/control-plane.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY gen gen
RUN pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels . \
 && pip --python /opt/footlights/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG UID=10001
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="Footlights control plane" \
      org.opencontainers.image.description="gRPC, REST, the front door and the console of Footlights" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --system --gid "${UID}" footlights \
 && useradd --system --uid "${UID}" --gid "${UID}" --no-create-home --home-dir /data --shell /usr/sbin/nologin footlights \
 && install -d -o footlights -g footlights -m 0700 /data /run/footlights
COPY --from=build /opt/footlights /opt/footlights
ENV PATH=/opt/footlights/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    FOOTLIGHTS_DATA_DIR=/data FOOTLIGHTS_LOG_FORMAT=json
# A number, so that an orchestrator can see that it is not root.
USER ${UID}:${UID}
VOLUME /data
EXPOSE 8080 50051
# The answer includes reading the store. With TLS, the probe connects to this machine itself, so the name in the
# certificate does not matter.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import json, ssl, urllib.request as r; u = json.load(open('/data/endpoints.json'))['http'].replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//[::1]:'); r.build_opener(r.ProxyHandler({}), r.HTTPSHandler(context=ssl._create_unverified_context())).open(u + '/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["footlights"]
# Nothing listens beyond the container by default. What an operator lets do so has TLS, unless --insecure is said.
CMD ["server"]
