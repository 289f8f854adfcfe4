"""BigQuery on this machine: bqemulator, with the gaps that matter here filled.

Runs in an environment of its own (constraints-bigquery.txt), so it imports nothing of the project:
`python bigquery_emulator.py PORT DATA_DIR`. What it adds:

- a load job's destination `table$YYYYMMDD` replaces that partition, in one transaction, as the service does. The day a
  row belongs to is the one in its `ds_nodash`, so a file with rows of another day is refused;
- NUMERIC has 38 digits, of which 9 are decimals, where DuckDB would take 18 and 3;
- `_PARTITIONDATE` and `_PARTITIONTIME` read as the row's partition;
- an uploaded job keeps the id its client chose, and the same id twice is 409 Already Exists;
- `/token` hands out access tokens for the service account that the local stack writes;
- its SQL reads and writes no file but the database's own and what is uploaded, and cannot change that;
- only clients with a token of this emulator are answered; else any page in a browser on this machine could run SQL.
  Every request but the one for a token needs it, and no page is given one. Requests that a page makes, or that came
  by another name of this host, are refused.
"""

import re
import secrets
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import duckdb_extensions
from bqemulator import server
from bqemulator.api.routes import upload
from bqemulator.catalog.models import JobMeta
from bqemulator.config import PersistenceMode, Settings
from bqemulator.domain.errors import AlreadyExistsError, InvalidQueryError, NotFoundError
from bqemulator.sql import translator
from bqemulator.sql.rewriter import partition_pseudo_columns
from bqemulator.storage.engine import DuckDBEngine
from bqemulator.storage.sql_identifiers import quoted_table_ref
from starlette.requests import Request
from starlette.responses import PlainTextResponse

requested_job_id: ContextVar[str | None] = ContextVar("requested_job_id", default=None)

create_app = server.create_app
execute_load_job = upload.execute_load_job
load_configuration_from_envelope = upload._load_configuration_from_envelope
run_load = upload._run_load
new_job_id = upload._new_job_id
rewrite_numeric_literals = translator.rewrite_numeric_literals


def guarded_app(context: Any) -> Any:
    """The emulator's app behind a token, and the token endpoint of the local service account."""
    app, token = create_app(context), secrets.token_urlsafe(32)

    @app.post("/token")  # type: ignore[untyped-decorator]
    def issue() -> dict[str, Any]:
        return {"access_token": token, "token_type": "Bearer", "expires_in": 3600}

    @app.middleware("http")  # type: ignore[untyped-decorator]
    async def guard(request: Request, call_next: Any) -> Any:
        # A browser says which page asks, also in a form's POST, and by which name it has found this host.
        if "origin" in request.headers or request.url.hostname != "127.0.0.1":
            return PlainTextResponse("refused: not for pages in a browser", 403)
        authorized = secrets.compare_digest(request.headers.get("authorization", ""), f"Bearer {token}")
        if not authorized and request.url.path != "/token":
            return PlainTextResponse("refused: no token of this emulator", 401)
        return await call_next(request)

    return app


class ConfinedEngine(DuckDBEngine):  # type: ignore[misc]
    """Confine the emulator's DuckDB to the files of its own folders, and lock that setting."""

    async def start(self) -> None:
        """Start as usual, then forbid other files: by now extensions are loaded and the database is open."""
        await super().start()
        data_dir = self._settings.data_dir.resolve()
        # This drops DuckDB's defaults, its folder of extensions and the home folder: harmless, and needed no more.
        self.execute(f"SET allowed_directories = ['{data_dir}/uploads/']")
        self.execute("SET enable_external_access = false")
        self.execute("SET lock_configuration = true")


def configuration_with_job_id(envelope: dict[str, Any]) -> dict[str, Any]:
    """The job's configuration, carrying the client's job id through the upload."""
    job_id = envelope.get("jobReference", {}).get("jobId")
    return {**load_configuration_from_envelope(envelope), "requestedJobId": job_id}


async def run_load_under_its_id(*, project_id: str, configuration: dict[str, Any], media_path: str, ctx: Any) -> Any:
    """Run an uploaded load job under the id its client chose. Raises AlreadyExistsError."""
    job_id = configuration.pop("requestedJobId")
    if job_id and ctx.catalog.get_job(project_id, job_id):
        raise AlreadyExistsError(f"Already Exists: Job {project_id}:US.{job_id}")
    requested_job_id.set(job_id)
    return await run_load(project_id=project_id, configuration=configuration, media_path=media_path, ctx=ctx)


async def load_table_or_partition(project_id: str, job_id: str, config: dict[str, Any], ctx: Any) -> JobMeta:
    """A load job whose destination may be one partition of a table."""
    destination = config["load"]["destinationTable"]
    table_id, decorated, day = destination["tableId"].partition("$")
    if not decorated:
        return await execute_load_job(project_id, job_id, config, ctx)
    project, dataset = destination["projectId"], destination["datasetId"]
    if ctx.catalog.get_table(project, dataset, table_id) is None:
        raise NotFoundError(f"Not found: Table {project}:{dataset}.{table_id}")
    started = ctx.clock.now()
    path = config["load"]["sourceUris"][0].removeprefix("file://")
    async with ctx.engine.write_lock():
        rows = replace_partition(ctx.engine, quoted_table_ref(project, dataset, table_id), day, path, config["load"])
    return JobMeta(
        project_id=project_id,
        job_id=job_id,
        job_type="LOAD",
        state="DONE",
        configuration=config,
        statistics={"load": {"outputRows": str(rows)}},
        creation_time=started,
        start_time=started,
        end_time=ctx.clock.now(),
        etag=job_id,
    )


def replace_partition(engine: Any, table: str, day: str, path: str, load: dict[str, Any]) -> int:
    """Put a Parquet file's rows into the partition of that day and return their number."""
    if load.get("sourceFormat") != "PARQUET":
        raise InvalidQueryError("only Parquet is loaded into partitions here")
    rows, misplaced = engine.execute(
        "SELECT count(*), count(*) FILTER (WHERE ds_nodash IS DISTINCT FROM ?) FROM read_parquet(?)", [day, path]
    ).fetchone()
    if misplaced:
        raise InvalidQueryError(f"{misplaced} rows of the file do not belong to partition {day}")
    engine.execute("BEGIN TRANSACTION")
    try:
        if load.get("writeDisposition") == "WRITE_TRUNCATE":
            engine.execute(f"DELETE FROM {table} WHERE ds_nodash = ?", [day])
        engine.execute(f"INSERT INTO {table} BY NAME SELECT * FROM read_parquet(?)", [path])
        engine.execute("COMMIT")
    except BaseException:
        engine.execute("ROLLBACK")
        raise
    return int(rows)


def with_wide_numeric(query: str) -> str:
    """The query with NUMERIC as the service has it."""
    return re.sub(r"\bAS NUMERIC\)", "AS NUMERIC(38, 9))", rewrite_numeric_literals(query))


def main(port: int, data_dir: Path) -> None:
    """Serve until SIGTERM."""
    # The emulator would download these two; from packages they are there already.
    for extension in ("spatial", "icu"):
        duckdb_extensions.import_extension(extension)
    server.create_app = guarded_app
    server.DuckDBEngine = ConfinedEngine
    upload._load_configuration_from_envelope = configuration_with_job_id
    upload._run_load = run_load_under_its_id
    upload._new_job_id = lambda: requested_job_id.get() or new_job_id()
    upload.execute_load_job = load_table_or_partition
    translator.rewrite_numeric_literals = with_wide_numeric
    partition_pseudo_columns._REPLACEMENTS.update(
        _PARTITIONDATE="PARSE_DATE('%Y%m%d', ds_nodash)", _PARTITIONTIME="PARSE_TIMESTAMP('%Y%m%d', ds_nodash)"
    )
    server.run_forever(
        Settings(
            rest_port=port,
            grpc_port=0,
            persistence_mode=PersistenceMode.PERSISTENT,
            data_dir=data_dir,
            upload_staging_dir=data_dir / "uploads",
            upload_max_bytes=10 * 2**30,
            enable_format_extensions=False,
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
