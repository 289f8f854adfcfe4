#!/usr/bin/env python3
"""Report as failed the runs that a code location has lost, so that Dagster repeats them.

Runs are child processes of the code location's server, and end with its container. Dagster's run monitoring does not
notice that, once they have started. Call this before the server starts: no run that it has launched can be alive then.
They are reported later, by a process that this leaves behind: the daemon repeats a run at once or never, and has to
know the new server by then.
"""

import subprocess
import sys
import time
from collections.abc import Iterable

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

# Set on each run that a code location's server has launched, and on no other.
LAUNCHED = ".dagster/grpc_info"
# Those that are starting or canceled end by run monitoring's own time limits.
STARTED = [DagsterRunStatus.STARTED]
# Once a minute, the daemon looks again for a server that was away.
DAEMON_SECONDS = 90


def find() -> list[str]:
    """The ids of the lost runs."""
    with DagsterInstance.get() as instance:
        return [run.run_id for run in instance.get_runs(RunsFilter(statuses=STARTED)) if LAUNCHED in run.tags]


def report(ids: Iterable[str]) -> None:
    """Report those that nobody has ended since, when the new server can repeat them."""
    health_check = ("sh", "-c", 'dagster api grpc-health-check --port "$DAGSTER_CODE_PORT"')
    while subprocess.run(health_check, capture_output=True, check=False).returncode:
        time.sleep(5)
    time.sleep(DAEMON_SECONDS)
    with DagsterInstance.get() as instance:
        for run in instance.get_runs(RunsFilter(run_ids=list(ids), statuses=STARTED)):
            instance.report_run_failed(run, "The code location was restarted, and the run's process ended with it.")


if __name__ == "__main__":
    if sys.argv[1:]:
        report(sys.argv[1:])
    elif lost := find():
        subprocess.Popen((sys.executable, __file__, *lost))
