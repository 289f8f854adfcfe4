"""`mozagg2bq backfill`: the command that launches a backfill on a running Dagster and follows it."""

from collections.abc import Iterator
from itertools import chain
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
@click.option("--follow", metavar="ID", help="Follow a backfill that is under way.")
@click.option("--retry", metavar="ID", help="Launch what has failed of that backfill instead, and follow it.")
@click.option("--cancel", metavar="ID", help="End that backfill instead; what it has committed stays.")
@click.option("--url", default="http://127.0.0.1:3000", show_default=True, help="Ask the Dagster webserver there.")
@debug_option
def backfill(
    days: DayRange | None,
    aggregate_type: AggregateType | None,
    follow: str | None,
    retry: str | None,
    cancel: str | None,
    url: str,
) -> None:
    """Launch a backfill on the running Dagster and follow it.

    It takes all stages of the days. Ctrl-C leaves it running.
    """
    if sum(choice is not None for choice in (days, follow, retry, cancel)) != 1:
        raise click.UsageError("Give --date, or --start and --end, or --follow, --retry or --cancel with an id.")
    client = DagsterClient(url.rstrip("/"))
    if cancel is not None:
        client.cancel(cancel)
        click.echo(f"backfill {cancel} is canceled: none of its runs goes on")
    elif days:
        check_partitions(days)
        _follow(client, client.launch(types(aggregate_type), list(days)))
    else:
        _follow(client, client.retry(retry) if retry is not None else str(follow))


def _follow(client: DagsterClient, backfill_id: str) -> None:
    """Follow a backfill to its end. Raises DataError where it does not succeed."""
    page = f"{client.url}/runs/b/{backfill_id}"
    try:
        click.echo(f"backfill {backfill_id}: {page}")
        last = _show_progress(client.follow(backfill_id, lambda line: click.echo(line, err=True)))
    except KeyboardInterrupt:
        raise UserError(
            f"no longer followed, but it goes on: look at {page}, or end it with"
            f" `mozagg2bq backfill --cancel {backfill_id}`"
        ) from None
    if last.canceled:
        raise DataError(f"backfill {backfill_id} was canceled: {last.done} of {last.targeted} partitions done")
    summary = f"{last.done} of {last.targeted} partitions done, {last.failed} failed, {last.rows:,} rows"
    if not last.succeeded:
        again = f"`mozagg2bq backfill --retry {backfill_id}` launches what has failed"
        raise DataError(f"backfill {backfill_id} {last.status}: {summary}: {last.error or page}; {again}")
    click.echo(summary)


def _show_progress(states: Iterator[Progress]) -> Progress:
    """A bar on a terminal; returns the last state."""
    started, first = monotonic(), next(states)
    with click.progressbar(length=first.targeted, label="partitions", item_show_func=lambda text: text or "") as bar:
        for state in chain([first], states):
            bar.length = state.targeted
            rate = max(state.rows - first.rows, 0) / max(monotonic() - started, 1)
            text = f"{state.done} done, {state.failed} failed, {state.rows:,} rows, {rate:,.0f} rows/s"
            bar.update(state.done + state.failed - bar.pos, text)
    return state
