"""`report`: makes a run's page again, from its folder; or one from a bare result log."""

from __future__ import annotations

import sys
from pathlib import Path

from ssd.errors import EXIT_REACHED, DataError
from ssd.report.log_story import story_of_log
from ssd.report.page import REPORT, write_report
from ssd.report.story import story_of_run, write_trace
from ssd.text import visible

__all__ = ["report_command"]


def report_command(run: Path, *, out: Path | None = None, no_pictures: bool = False) -> int:
    """Write the page of a run's folder into it, with its trace.json; that of a log beside it, as NAME.report.html.

    out: another file for the page. Raises DataError for what is neither a run's folder nor a result log, OSError where
    the page cannot be written.
    """
    if run.is_dir():
        story, page = story_of_run(run), run / REPORT
        if out is None:
            write_trace(run)
    elif run.is_file():
        story, page = story_of_log(run), run.with_name(f"{run.stem}.{REPORT}")
    else:
        raise DataError(f"{run}: no such file or folder: name a run's folder, or a result log")
    write_report(story, out or page, pictures=not no_pictures)
    sys.stdout.write(f"report: {visible(str(out or page))}\n")
    return EXIT_REACHED
