# DevLake's image plus the plugin:
#   docker build -f deploy/plugin.Dockerfile --build-arg DEVLAKE_IMAGE=apache/devlake:v1.0.3 .
ARG DEVLAKE_IMAGE=apache/devlake:v1.0.3
FROM ${DEVLAKE_IMAGE}

# Owned by root: DevLake's server only reads it.
USER 0
WORKDIR /app/python/plugins/developer_telemetry
COPY pyproject.toml README.md build.sh run.sh ./
COPY scripts/pip_install.sh ./scripts/
COPY collector ./collector
COPY developer_telemetry ./developer_telemetry
# Uses DevLake's SDK, which is next to the plugins with Poetry and with uv. DevLake's user can't write
# here, so Python's bytecode is compiled now.
RUN ./build.sh && .venv-plugin/bin/python -m compileall -q developer_telemetry ../../pydevlake/pydevlake
USER 1010
WORKDIR /app
