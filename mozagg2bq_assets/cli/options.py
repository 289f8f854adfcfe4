"""Types and options that several commands share. Nothing here reads settings: converting a folder needs none."""

import json
import os
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, TypeAlias

import click
from click.shell_completion import CompletionItem

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.model.partitions import DayRange, parse_day
from mozagg2bq_assets.model.tables import AggregateType

Command: TypeAlias = Callable[..., None]
Decorator: TypeAlias = Callable[[Command], Command]

DEBUG = "mozagg2bq.debug"
QUIET = "mozagg2bq.quiet"


class AggregateTypeParameter(click.ParamType[AggregateType]):
    """An aggregate type on the command line."""

    name = "type"

    def convert(
        self, value: str | AggregateType, parameter: click.Parameter | None, context: click.Context | None
    ) -> AggregateType:
        """Take any of a type's names."""
        try:
            return AggregateType.parse(value)
        except UserError as error:
            self.fail(str(error), parameter, context)

    def shell_complete(
        self, context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete a type's name."""
        return [CompletionItem(each.value) for each in AggregateType if each.startswith(incomplete)]


class DayParameter(click.ParamType[date]):
    """A day on the command line."""

    name = "date"

    def convert(self, value: str | date, parameter: click.Parameter | None, context: click.Context | None) -> date:
        """Convert the text to a date. 9999-12-31 is refused, as a range needs the day after its last one."""
        try:
            day = value if isinstance(value, date) else parse_day(value)
        except UserError as error:
            self.fail(str(error), parameter, context)
        if day == date.max:
            self.fail(f"{day} is too late: no day follows it", parameter, context)
        return day


class PathParameter(click.Path):
    """A path on the command line that is not empty and is valid UTF-8."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Path:
        """Check the path, and that it is text."""
        path = os.fsdecode(super().convert(value, parameter, context))
        if not path:
            self.fail("an empty path: name one, . is this folder", parameter, context)
        try:
            path.encode()
        except UnicodeEncodeError:
            self.fail(f"{path!r} is not UTF-8: rename it", parameter, context)
        return Path(path)


def _set_debug(context: click.Context, _: click.Parameter, debug: bool) -> None:
    # A group and its commands share `meta`: `--debug` before the command counts too.
    if debug:
        context.meta[DEBUG] = True


debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show the traceback of an error."
)


def _set_quiet(context: click.Context, _: click.Parameter, quiet: bool) -> None:
    context.meta[QUIET] = quiet


def is_quiet() -> bool:
    """Whether the command that runs was given `--quiet`."""
    return bool(click.get_current_context().meta.get(QUIET))


quiet_option = click.option(
    "--quiet", is_flag=True, expose_value=False, callback=_set_quiet, help="Do not show how far it is."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
input_dir_option = click.option(
    "--input-dir", type=PathParameter(exists=True, file_okay=False), required=True, help="Read from this folder."
)
output_dir_option = click.option(
    "--output-dir",
    type=PathParameter(file_okay=False),
    required=True,
    help="Write to this folder, which is made if it is missing.",
)


def paint(text: str, colour: str) -> str:
    """The text in a colour, unless NO_COLOR is set; `click.echo` takes it away where there is no terminal."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=colour)


def print_json(result: Any) -> None:
    """Print a result as JSON; dates and paths are text in it."""
    click.echo(json.dumps(result, default=str, ensure_ascii=False))


def type_option(required: bool) -> Decorator:
    """Add `--aggregate-type`."""
    text = "Take submission_date (or submission) or build_id (or build)."
    return click.option(
        "--aggregate-type",
        type=AggregateTypeParameter(),
        required=required,
        help=text if required else f"{text} Without it both are taken.",
    )


def days_options(required: bool) -> Decorator:
    """Add `--date` for one day, and `--start` and `--end` for a range.

    The command gets them as `days`: a DayRange, or None where none of them is given and none is required.
    """
    options = (
        _day_option("--date", "day", help="Take this one day, written 2019-12-01 or 20191201."),
        _day_option("--start", "start", help="Take a range that begins with this day."),
        _day_option("--end", "end", help="End the range before this day: it is the day after the last one."),
        # As ranges were written at first: --date D --end-date D2.
        _day_option("--start-date", "old_start", hidden=True),
        _day_option("--end-date", "old_end", hidden=True),
    )

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_days(
            day: date | None,
            start: date | None,
            end: date | None,
            old_start: date | None,
            old_end: date | None,
            **others: Any,
        ) -> None:
            days = _day_range(day, start or old_start, end, old_end)
            if required and days is None:
                raise click.UsageError("Missing option '--date', or '--start' and '--end'.")
            command(days=days, **others)

        decorated: Command = with_days
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def types(chosen: AggregateType | None) -> Sequence[AggregateType]:
    """The type that was chosen, or both."""
    return [chosen] if chosen else list(AggregateType)


def _day_option(name: str, variable: str, **attributes: Any) -> Decorator:
    return click.option(name, variable, type=DayParameter(), **attributes)


def _day_range(day: date | None, start: date | None, end: date | None, old_end: date | None) -> DayRange | None:
    """The day or the range that the options give. Raises UsageError where they do not fit together."""
    if day and (start or end):
        raise click.UsageError("--date is for one day: give either it, or --start and --end.")
    first = start or day
    after = end or old_end or (day and day + timedelta(days=1))
    if first is None and after is None:
        return None
    if first is None or after is None:
        raise click.UsageError("--start and --end go together; --date is for one day.")
    if after <= first:
        raise click.BadParameter(f"{after} is not after {first}; the end is exclusive.", param_hint="'--end'")
    return DayRange(first, after)
