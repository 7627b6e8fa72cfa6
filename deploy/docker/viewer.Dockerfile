# syntax=docker/dockerfile:1
# Only the reference application: for versions that run in a container, and a template for your own renderer.
#
#     docker build -f deploy/docker/viewer.Dockerfile -t footlights/viewer .
#     docker run --rm --network host footlights/viewer
#
# The agent passes the ports as arguments: a version's `container` names this image and its arguments are those of
# `footlights-viewer --help`. Without arguments it serves a sample stage on the ports below.
#
# Linted with hadolint; the steps of its first stage have been run by hand. Not yet built by an engine.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Without pip: nothing is installed at run time.
RUN python -m venv --without-pip /opt/footlights
WORKDIR /source
# What Footlights is tested with, each file by its hash, and only wheels: nothing is compiled, nothing is resolved anew.
COPY requirements requirements
RUN pip install --require-hashes --only-binary=:all: -r requirements/build.txt \
 && pip --python /opt/footlights/bin/python install --require-hashes --only-binary=:all: -r requirements/viewer.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY gen gen
RUN pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels . \
 && pip --python /opt/footlights/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG UID=10004
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="Footlights viewer" \
      org.opencontainers.image.description="The reference application of Footlights: a USD stage as a WebRTC stream" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# libX11: the software rasteriser links it, although it opens no display.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libx11-6 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid "${UID}" footlights \
 && useradd --system --uid "${UID}" --gid "${UID}" --create-home --shell /usr/sbin/nologin footlights
COPY --from=build /opt/footlights /opt/footlights
ENV PATH=/opt/footlights/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that an orchestrator can see that it is not root.
USER ${UID}:${UID}
WORKDIR /home/footlights
EXPOSE 8010/tcp 8011/udp 8012/tcp
# Its HTTP port is an argument, so the check reads the arguments that it was started with.
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; a = open('/proc/1/cmdline').read().split('\\0'); r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + a[a.index('--http-port') + 1] + '/v1/streaming/ready', timeout=3)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["footlights-viewer"]
CMD ["--signal-port", "8010", "--media-port", "8011", "--http-port", "8012"]
