"""`make demo`: what it makes of a run's result."""

import pytest
from dagster import DagsterInstance, job, op

from mozagg2bq_assets.local.demo import was_interrupted


@pytest.mark.parametrize(("error", "expected"), [(KeyboardInterrupt, True), (ValueError, False), (None, False)])
def test_interrupted_runs_are_told_from_failed_ones(error: type[BaseException] | None, expected: bool) -> None:
    """An interrupted demo ends; one that failed goes on, to show which counts are off."""

    @op
    def step() -> None:
        if error is not None:
            raise error

    @job
    def steps() -> None:
        step()

    with DagsterInstance.ephemeral() as instance:
        result = steps.execute_in_process(instance=instance, raise_on_error=False)
    assert was_interrupted(result) is expected
    assert result.success is (error is None)
