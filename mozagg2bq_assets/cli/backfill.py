"""`mozagg2bq backfill`: the command that launches a backfill on a running Dagster and follows it."""

from collections.abc import Iterator
from datetime import date
from time import monotonic

import click

from mozagg2bq_assets.cli.dagster_client import DagsterClient, Progress
from mozagg2bq_assets.cli.options import DayOption, check_partitions, day_range, type_option, types
from mozagg2bq_assets.errors import DataError, UserError
from mozagg2bq_assets.model.tables import AggregateType


@click.command()
@click.option("--start", type=DayOption(), help="The first day.")
@click.option("--end", type=DayOption(), help="The day after the last day.")
@type_option(required=False)
@click.option("--cancel", metavar="ID", help="End that backfill instead; what it has committed stays.")
@click.option("--url", default="http://127.0.0.1:3000", show_default=True, help="Where Dagster's webserver is.")
def backfill(start: date | None, end: date | None, aggregate_type: AggregateType | None, cancel: str, url: str) -> None:
    """Launch a backfill of all stages on the running Dagster and follow it to its end."""
    client = DagsterClient(url.rstrip("/"))
    if cancel:
        client.cancel(cancel)
        click.echo(f"backfill {cancel} is being canceled")
        return
    if start is None or end is None:
        raise UserError("--start and --end are needed, or --cancel with a backfill's id")
    days = day_range(start, end, "--start", "--end")
    check_partitions(days)
    backfill_id = client.launch(types(aggregate_type), list(days))
    page = f"{client.url}/runs/b/{backfill_id}"
    try:
        click.echo(f"backfill {backfill_id}: {page}")
        last = _show_progress(client.follow(backfill_id), len(days) * len(types(aggregate_type)))
    except KeyboardInterrupt:
        raise UserError(
            f"no longer followed, but it goes on: look at {page}, or end it with"
            f" `mozagg2bq backfill --cancel {backfill_id}`"
        ) from None
    summary = f"{last.done} of {last.targeted} partitions done, {last.failed} failed, {last.rows:,} rows"
    if not last.succeeded:
        raise DataError(f"backfill {backfill_id} {last.status}: {summary}: {last.error or page}")
    click.echo(summary)


def _show_progress(states: Iterator[Progress], partitions: int) -> Progress:
    """A bar on a terminal; returns the last state."""
    started = monotonic()
    with click.progressbar(length=partitions, label="partitions", item_show_func=lambda text: text or "") as bar:
        for state in states:
            rate = state.rows / max(monotonic() - started, 1)
            text = f"{state.done} done, {state.failed} failed, {state.rows:,} rows, {rate:,.0f} rows/s"
            bar.update(state.done + state.failed - bar.pos, text)
    return state
