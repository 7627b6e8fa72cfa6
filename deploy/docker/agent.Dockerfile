# syntax=docker/dockerfile:1
# A node's agent, with the reference application, so that a node without a GPU has something to run.
#
#     docker build -f deploy/docker/agent.Dockerfile -t footlights/agent .
#
# Run it with `init: true`: applications outlive the process that started them and are adopted by pid 1.
# Applications of the `process` launcher run in this container and end with it; those of `container` do not.
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
 && pip --python /opt/footlights/bin/python install --require-hashes --only-binary=:all: -r requirements/agent.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY gen gen
RUN pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels . \
 && pip --python /opt/footlights/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG UID=10002
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="Footlights agent" \
      org.opencontainers.image.description="Offers a machine's GPUs to Footlights, with the reference application" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# libX11: the viewer's software rasteriser links it, although it opens no display.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libx11-6 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid "${UID}" footlights \
 && useradd --system --uid "${UID}" --gid "${UID}" --no-create-home --home-dir /data --shell /usr/sbin/nologin footlights \
 && install -d -o footlights -g footlights -m 0700 /data /run/footlights
COPY --from=build /opt/footlights /opt/footlights
ENV PATH=/opt/footlights/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    FOOTLIGHTS_DATA_DIR=/data FOOTLIGHTS_LOG_FORMAT=json
# A number, so that an orchestrator can see that it is not root.
USER ${UID}:${UID}
VOLUME /data
# An agent listens on no port. The check looks up its lock on the data directory, without taking it: that would keep an
# agent from starting.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import os, sys; end = f\":{os.stat('/data/agent.lock').st_ino}\"; locks = [line.split() for line in open('/proc/locks')]; sys.exit(not any(lock[1] == 'FLOCK' and lock[5].endswith(end) for lock in locks))"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["footlights"]
CMD ["agent"]
