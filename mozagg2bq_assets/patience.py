"""Try a step again that has met a service which is away or overloaded, with growing pauses."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential_jitter

from mozagg2bq_assets.errors import Cancelled, TransientError, machine_errors

Value = TypeVar("Value")

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0


@dataclass(frozen=True)
class Patience:
    """How long a step's pauses may last in total (the last may exceed it), who is told of them, and what ends them.

    The time that the step itself takes does not count. Without seconds, nothing is tried again.
    """

    seconds: float = 0.0
    tell: Callable[[str], None] = lambda _: None
    cancelled: Event = field(default_factory=Event)

    def call(self, step: Callable[[], Value]) -> Value:
        """Return what the step returns.

        It is called again after TransientError, also one that `machine_errors` makes, as of a full disk. Raises the
        step's last error, translated so, and Cancelled if a pause is ended.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            # Jitter keeps days that have failed together from coming back together.
            wait=wait_exponential_jitter(
                multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS, jitter=FIRST_PAUSE_SECONDS
            ),
            stop=lambda state: state.idle_for >= self.seconds,
            before_sleep=self._tell,
            sleep=self._pause,
            reraise=True,
        )
        return retrying(machine_errors()(step))

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self.tell(f"waiting {state.upcoming_sleep:.0f} s before trying again: {error}")

    def _pause(self, seconds: float) -> None:
        if self.cancelled.wait(seconds):
            raise Cancelled
