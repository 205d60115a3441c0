# DevLake's own image with the plugin in it:
#   docker build -f deploy/plugin.Dockerfile --build-arg DEVLAKE_IMAGE=apache/devlake:v1.0.3 .
ARG DEVLAKE_IMAGE=apache/devlake:v1.0.3
FROM ${DEVLAKE_IMAGE}

# As root and for root: DevLake's server only has to read it.
USER 0
WORKDIR /app/python/plugins/developer_telemetry
COPY pyproject.toml README.md build.sh run.sh ./
COPY scripts/pip_install.sh ./scripts/
COPY developer_telemetry ./developer_telemetry
# On DevLake's SDK, which lies beside the plugins whether they came by Poetry or by uv. DevLake's user
# can't write here, so Python's bytecode has to be there before.
RUN ./build.sh && .venv-plugin/bin/python -m compileall -q developer_telemetry ../../pydevlake/pydevlake
USER 1010
WORKDIR /app
