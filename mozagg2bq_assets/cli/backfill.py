"""`mozagg2bq backfill`: the command that launches a backfill on a running Dagster and follows it."""

from collections.abc import Iterator, Sequence
from time import monotonic

import click

from mozagg2bq_assets.cli.dagster_client import DagsterClient, Progress
from mozagg2bq_assets.cli.options import days_options, debug_option, type_option, types
from mozagg2bq_assets.cli.partitions import check_partitions
from mozagg2bq_assets.errors import DataError, UserError
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType


@click.command()
@days_options(required=False)
@type_option(required=False)
@click.option("--cancel", metavar="ID", help="End that backfill instead; what it has committed stays.")
@click.option("--url", default="http://127.0.0.1:3000", show_default=True, help="Ask the Dagster webserver there.")
@debug_option
def backfill(days: DayRange | None, aggregate_type: AggregateType | None, cancel: str | None, url: str) -> None:
    """Launch a backfill on the running Dagster and follow it.

    It takes all stages of the days. Ctrl-C leaves it running.
    """
    client = DagsterClient(url.rstrip("/"))
    if (days is None) == (cancel is None):
        raise click.UsageError("Give --date, or --start and --end, or --cancel with a backfill's id.")
    if days is not None:
        _launch(client, days, types(aggregate_type))
    if cancel is not None:
        client.cancel(cancel)
        click.echo(f"backfill {cancel} is being canceled")


def _launch(client: DagsterClient, days: DayRange, chosen: Sequence[AggregateType]) -> None:
    """Launch a backfill, and follow it to its end. Raises DataError where it does not succeed."""
    check_partitions(days)
    backfill_id = client.launch(chosen, list(days))
    page = f"{client.url}/runs/b/{backfill_id}"
    try:
        click.echo(f"backfill {backfill_id}: {page}")
        last = _show_progress(client.follow(backfill_id), len(days) * len(chosen))
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
