"""The sensor `alarms`, tick by tick, and what its receiver was told."""

import json

from dagster import DagsterInstance, SkipReason, build_sensor_context

from mozagg2bq_assets_tests.helpers.proxies import HttpProxy


def tick(instance: DagsterInstance, cursor: str | None) -> tuple[str, str]:
    """What the sensor says, and its cursor."""
    from mozagg2bq_assets.definitions import defs

    definitions = defs()
    resources = dict(definitions.resources or {})
    context = build_sensor_context(instance=instance, cursor=cursor, definitions=definitions, resources=resources)
    skipped = definitions.get_sensor_def("alarms")(context)
    assert isinstance(skipped, SkipReason)
    return str(skipped.skip_message), context.cursor or ""


def texts(receiver: HttpProxy) -> list[str]:
    """What it was told."""
    return [json.loads(request.body)["text"] for request in receiver.requests]
