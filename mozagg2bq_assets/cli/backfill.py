"""`mozagg2bq backfill`: the command that launches a backfill on a running Dagster and follows it."""

import sys
from collections.abc import Sequence
from itertools import chain
from time import monotonic

import click

from mozagg2bq_assets.cli.dagster_client import DagsterClient, Progress, kind
from mozagg2bq_assets.cli.options import (
    days_options,
    debug_option,
    is_quiet,
    json_option,
    print_json,
    quiet_option,
    type_option,
    types,
)
from mozagg2bq_assets.cli.partitions import check_partitions
from mozagg2bq_assets.cli.progress import progress
from mozagg2bq_assets.errors import DataError, UserError, brief
from mozagg2bq_assets.model.partitions import DayRange, Partition
from mozagg2bq_assets.model.tables import AggregateType

LISTED_FAILURES = 10
REASON_CHARACTERS = 200


@click.command()
@days_options(required=False)
@type_option(required=False)
@click.option("--follow", metavar="ID", help="Follow a backfill or run that is under way.")
@click.option("--retry", metavar="ID", help="Launch again what has failed in this backfill or run, and follow that.")
@click.option("--cancel", metavar="ID", help="Cancel this backfill or run; what it has committed stays.")
@click.option(
    "--url",
    default="http://127.0.0.1:3000",
    envvar="DAGSTER_URL",
    show_default=True,
    show_envvar=True,
    help="Ask the Dagster webserver there.",
)
@quiet_option
@json_option
@debug_option
def backfill(
    days: DayRange | None,
    aggregate_type: AggregateType | None,
    follow: str | None,
    retry: str | None,
    cancel: str | None,
    url: str,
    as_json: bool,
) -> None:
    """Launch a backfill on the running Dagster and follow it.

    It takes all stages of the days. What fits into one run is launched as that run, at once. Ctrl-C leaves it running.
    """
    if sum(choice is not None for choice in (days, follow, retry, cancel)) != 1:
        raise click.UsageError("Give --date, or --start and --end, or --follow, --retry or --cancel with an id.")
    client = DagsterClient(url.rstrip("/"))
    if cancel is not None:
        client.cancel(cancel)
        click.echo(f"{kind(cancel)} {cancel} is canceled: none of its runs goes on", err=as_json)
        if as_json:
            _print_json(client, cancel, client.progress(cancel))
    elif days:
        check_partitions(days)
        _follow(client, _launch(client, types(aggregate_type), days, as_json), as_json)
    else:
        _follow(client, client.retry(retry) if retry is not None else str(follow), as_json)


def _launch(client: DagsterClient, chosen: Sequence[AggregateType], days: DayRange, as_json: bool) -> str:
    """Launch the days as one run if one takes them, as that begins at once; otherwise as a backfill."""
    run_id = client.launch_run(chosen, days)
    if run_id is None:
        return client.launch(chosen, list(days))
    fit = "1 day fits" if len(days) == 1 else f"{len(days)} days fit"
    click.echo(f"{fit} into one run: run {run_id} launched directly", err=as_json)
    return run_id


def _follow(client: DagsterClient, id_: str, as_json: bool) -> None:
    """Follow it to its end, and print what became of it. Raises DataError where it does not succeed."""
    named = f"{kind(id_)} {id_}"
    page = client.page(id_)
    try:
        click.echo(f"{named}: {page}", err=as_json)
        last = _show_progress(client, id_)
    except KeyboardInterrupt:
        raise UserError(
            f"no longer followed, but it goes on: look at {page}, or end it with `mozagg2bq backfill --cancel {id_}`"
        ) from None
    if as_json:
        _print_json(client, id_, last)
    else:
        _print_days(last)
    if last.canceled:
        raise DataError(f"{named} was canceled: {last.done} of {last.targeted} partitions done")
    summary = f"{last.done} of {last.targeted} partitions done, {len(last.failed)} failed, {last.rows:,} rows"
    if not last.succeeded:
        again = f"`mozagg2bq backfill --retry {id_}` launches what has failed"
        raise DataError(f"{named} {last.status}: {summary}: {last.error or page}; {again}")
    click.echo(summary, err=as_json)


def _show_progress(client: DagsterClient, id_: str) -> Progress:
    """Show how far it is until it ends; returns the last state."""
    states = client.follow(id_, _say)
    started, first = monotonic(), next(states)
    with progress(f"{first.targeted} partitions", first.targeted) as tell:
        begun: set[str] = set()
        for state in chain([first], states):
            # On lines of their own: beside the bar a terminal has no room for them.
            for days in state.running:
                if days not in begun and not is_quiet():
                    _say(f"running {days}")
            begun.update(state.running)
            rate = max(state.rows - first.rows, 0) / max(monotonic() - started, 1)
            failed = f", {len(state.failed)} failed" if state.failed else ""
            tell(state.done + len(state.failed), f"{state.done} done{failed}, {state.rows:,} rows, {rate:,.0f} rows/s")
    return state


def _say(line: str) -> None:
    """Print a line above the bar: what click prints would be on the bar's own line."""
    print(line, file=sys.stderr, flush=True)


def _print_days(last: Progress) -> None:
    """Print the days that failed, with the reason of each, and those that are empty."""
    for partition, reason in list(last.failed.items())[:LISTED_FAILURES]:
        click.echo(f"{_day(partition)} failed: {brief(reason, REASON_CHARACTERS)}")
    if len(last.failed) > LISTED_FAILURES:
        click.echo(f"and {len(last.failed) - LISTED_FAILURES} more")
    if last.empty:
        are = "1 day is" if len(last.empty) == 1 else f"{len(last.empty)} days are"
        click.echo(f"{are} empty: {', '.join(map(_day, last.empty))}")


def _print_json(client: DagsterClient, id_: str, last: Progress) -> None:
    result = {
        "id": id_,
        "url": client.page(id_),
        "status": last.status,
        "targeted": last.targeted,
        "done": last.done,
        "failed": [{**_names(partition), "reason": reason} for partition, reason in last.failed.items()],
        "empty": [_names(partition) for partition in last.empty],
        "rows": last.rows,
    }
    print_json(result)


def _names(partition: Partition) -> dict[str, str]:
    return {"type": partition.aggregate_type, "day": partition.day.isoformat()}


def _day(partition: Partition) -> str:
    return f"{partition.aggregate_type} {partition.day}"
