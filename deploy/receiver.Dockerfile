# The receiver alone, without DevLake:
#   docker build -f deploy/receiver.Dockerfile -t developer-telemetry-receiver .
# Debian's slim image, not Alpine's: the receiver was measured with this C library.
FROM python:3.13-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md constraints.txt ./
COPY sdk ./sdk
COPY collector ./collector
COPY developer_telemetry ./developer_telemetry
# Build tools stay in this stage. The SDK is installed from its file: its name on the package index is
# not ours, so it must not be looked up there.
RUN python -m pip install --no-cache-dir --constraint constraints.txt hatchling editables \
    && python -m pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir wheels ./sdk . \
    && python -m venv --without-pip /opt/developer-telemetry \
    && python -m pip --python /opt/developer-telemetry/bin/python install --no-cache-dir \
        --constraint constraints.txt --only-binary=:all: wheels/pydevlake-*.whl \
        "$(echo wheels/devlake_developer_telemetry-*.whl)[receiver]"

FROM python:3.13-slim-bookworm
COPY --from=build /opt/developer-telemetry /opt/developer-telemetry
# A named volume takes its owner from the folder on which it is mounted.
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/developer-telemetry
ENV PATH=/opt/developer-telemetry/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TELEMETRY_DATA_DIR=/var/lib/developer-telemetry \
    TELEMETRY_HOST=0.0.0.0
USER 10001:10001
WORKDIR /var/lib/developer-telemetry
VOLUME /var/lib/developer-telemetry
EXPOSE 8090
# Checks that the process answers, not that it is ready: a restart does not help while a database is away.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", "\
from developer_telemetry.receiver.listen_addresses import main; main()"]
ENTRYPOINT ["developer-telemetry"]
CMD ["serve"]
