"""What people see of a run while it goes: a bar on a terminal, lines elsewhere; and run.log, which keeps it all."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from ssd.account.anomalies import DATA_BOUND
from ssd.account.timeline import Timeline
from ssd.console import VisibleFormatter, is_quiet
from ssd.errors import as_ssd_error

__all__ = ["RUN_LOG", "ProgressLine", "text_log"]

log = logging.getLogger(__name__)

RUN_LOG = "run.log"
"""The file in a run's folder that holds what the run said, each line with its time."""


class ProgressLine:
    """A bar and two lines under it on a terminal, a log line an interval elsewhere. `shown=False` shows nothing.

    On a terminal the log lines stay above the bar, and the lines of `step` go to run.log alone.
    Owner: the main thread. rich's own thread draws the bar, under rich's lock.
    """

    def __init__(
        self,
        total_steps: int,
        shown: bool,
        *,
        target: float | None = None,
        mean_ap: float | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        """shown: on rank 0 alone. Where `--quiet` was given the bar is left out.

        target: the mAP that ends the run. mean_ap: of the last evaluation before a resume. timeline: of this process,
        for what limits the run.
        """
        self._total = total_steps
        self._shown = shown
        self._target, self._mean_ap = target, mean_ap
        self._timeline = timeline
        self._before = timeline.totals() if timeline else {}
        self._live: Progress | None = None
        self._task: TaskID | None = None
        if shown and sys.stderr.isatty() and not is_quiet():
            columns = (TextColumn("training"), BarColumn(bar_width=None), TaskProgressColumn(), TimeElapsedColumn())
            # Log lines are written to sys.stderr, which rich redirects to above the bar.
            self._live = _BarAndLine(*columns, console=Console(stderr=True), transient=True, expand=True)

    def __enter__(self) -> ProgressLine:
        if self._live:
            self._task = self._live.add_task("training", total=self._total, now="", so_far="")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def step(
        self,
        step: int,
        epoch: int,
        loss: float,
        learning_rate: float,
        images_per_second: float | None,
        seconds_left: float | None,
    ) -> None:
        """Show where the run is after `step` optimizer steps.

        images_per_second, seconds_left: None until two intervals are over. seconds_left: to the last epoch; the target
        may be met before.
        """
        now = f"step {step}/{self._total}  epoch {epoch}  loss {loss:.3f}  lr {learning_rate:.3g}"
        if images_per_second is not None:
            now += f"  {images_per_second:.1f} images/s"
        if seconds_left:
            now += f"  at most {_duration(seconds_left)} left"
        so_far = self._so_far()
        both = f"{now}  {so_far}".rstrip()
        if self._live and self._task is not None:
            log.debug(both)
            self._live.update(self._task, completed=step, now=now, so_far=so_far)
        elif self._shown:
            log.info(both)

    def _so_far(self) -> str:
        """The last mAP beside the target, and what has limited training since the last line; "" where unknown."""
        parts = []
        if self._target is not None:
            reached = "not evaluated" if self._mean_ap is None else f"{self._mean_ap:.4f}"
            parts.append(f"mAP {reached}, target {self._target:g}")
        if self._timeline is not None:
            spent = self._timeline.since(self._before)
            self._before = self._timeline.totals()
            waited, trained = (spent.get(name, 0.0) for name in ("data_wait", "step"))
            if waited > DATA_BOUND * (waited + trained):
                parts.append(f"limited by data: {waited / (waited + trained):.0%} of the time")
            elif trained:
                parts.append("limited by compute")
        return "  ".join(parts)

    def scored(self, epoch: int, mean_ap: float) -> None:
        """Say the mAP after `epoch`, and show it from now on."""
        self._mean_ap = mean_ap
        self.say(f"epoch {epoch}: mAP {mean_ap:.4f}, target {self._target}")

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._shown:
            log.info(text)


class _BarAndLine(Progress):
    """The bar as wide as the terminal; below it, each on a line of its own, the task's fields `now` and `so_far`."""

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            for name in ("now", "so_far"):
                if task.fields[name]:
                    yield Text(task.fields[name], no_wrap=True, overflow="ellipsis")


def _duration(seconds: float) -> str:
    """`40 s`, `1.5 min`, `2.5 h`; never 0."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


@contextmanager
def text_log(path: Path | None) -> Iterator[None]:
    """Append what this process logs inside to the file at `path`, and why it ended where it raises. None: no file.

    It holds more than a terminal shows: DEBUG lines of this project, and with `--quiet` all others, too.
    """
    if path is None:
        yield
        return
    handler = _File(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(VisibleFormatter("%(asctime)s %(message)s"))
    ours = logging.getLogger("ssd")
    level = ours.level
    ours.setLevel(logging.DEBUG)
    logging.getLogger().addHandler(handler)
    try:
        yield
    except BaseException as error:
        known = as_ssd_error(error)
        defect = known is None and isinstance(error, Exception)
        log.debug("the run ended here: %s", known or str(error) or repr(error), exc_info=error if defect else None)
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        ours.setLevel(level)
        with suppress(OSError):  # what a full disk did not take is written once more here
            handler.close()


class _File(logging.FileHandler):
    """A log file whose disk may be full. The result log and metrics.jsonl end the run then, and say why."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Let the line go."""
