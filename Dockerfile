# The project with Debian's own Python and PostgreSQL client. docs/deployment.md says how to build and use it.
FROM debian:bookworm-slim AS build
RUN apt-get update -qq \
    && apt-get install -qq --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/mozagg2bq
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
# First what it depends on, beside an empty package: that layer stays while only the code changes.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    mkdir mozagg2bq_assets && touch mozagg2bq_assets/__init__.py \
    && /opt/mozagg2bq/bin/pip install --quiet --no-cache-dir --constraint constraints.txt '.[deploy]'
COPY mozagg2bq_assets mozagg2bq_assets
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/mozagg2bq/bin/pip install --quiet --no-cache-dir --no-deps --force-reinstall . \
    && /opt/mozagg2bq/bin/pip uninstall --quiet --yes pip setuptools

FROM debian:bookworm-slim
# The major version of pg_dump and psql, where the source is newer than Debian's own; from PostgreSQL's repository.
ARG POSTGRES_CLIENT=
RUN apt-get update -qq \
    && if [ -n "$POSTGRES_CLIENT" ]; then \
        apt-get install -qq --no-install-recommends ca-certificates postgresql-common \
        && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y; \
    fi \
    && apt-get install -qq --no-install-recommends \
        ca-certificates python3 "postgresql-client${POSTGRES_CLIENT:+-$POSTGRES_CLIENT}" \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home mozagg2bq \
    && install --directory --owner mozagg2bq /data /scratch
COPY --from=build /opt/mozagg2bq /opt/mozagg2bq
COPY deploy/dagster.yaml deploy/workspace.yaml /opt/dagster/
COPY --chmod=755 deploy/entrypoint deploy/end_lost_runs.py /usr/local/bin/
ENV PATH=/opt/mozagg2bq/bin:$PATH \
    DAGSTER_HOME=/opt/dagster \
    TMPDIR=/scratch \
    PYTHONUNBUFFERED=1
USER mozagg2bq
WORKDIR /data
ENTRYPOINT ["entrypoint"]
CMD ["mozagg2bq", "--help"]
