"""What people see while a run goes: a bar on a terminal, lines elsewhere; and run.log, which keeps it all."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ssd.console import StderrHandler
from ssd.errors import MachineError
from ssd.run import line as line_module
from ssd.run.line import ProgressLine, text_log
from ssd.terminal import Unfailing


class Terminal(io.StringIO):
    """A terminal of 100 columns."""

    def isatty(self) -> bool:
        return True


@contextmanager
def logged_to(stream: Any, level: int = logging.INFO) -> Iterator[None]:
    """Standard error is this stream, and log lines go to it. Not a fixture: pytest sets sys.stderr after those."""
    handler = StderrHandler(level)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_module.sys, "stderr", stream)
        patch.setenv("COLUMNS", "100")
        patch.setenv("TERM", "xterm")
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)


def test_other_ranks_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), ProgressLine(10, shown=False) as line:
        line.step(1, 1, 2.0, 0.1, 3.0, 4.0)
        line.say("hello")
    assert caplog.text == ""


def test_plain_lines_where_there_is_no_terminal(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), ProgressLine(10, shown=True) as line:
        line.step(1, 1, 2.0, 0.1, None, None)
        line.step(5, 1, 2.0, 0.1, 12.34, 90.0)
        line.step(10, 1, 2.0, 0.1, 12.34, 0.0)
    assert caplog.messages == [
        "step 1/10  epoch 1  loss 2.000  lr 0.1",
        "step 5/10  epoch 1  loss 2.000  lr 0.1  12.3 images/s  at most 1.5 min left",
        "step 10/10  epoch 1  loss 2.000  lr 0.1  12.3 images/s",
    ]


class Spent:
    """A timeline whose parts the test sets."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    def totals(self) -> dict[str, float]:
        return dict(self.parts)

    def since(self, before: dict[str, float]) -> dict[str, float]:
        return {name: seconds - before.get(name, 0.0) for name, seconds in self.parts.items()}


def test_the_map_so_far_and_what_limits(caplog: pytest.LogCaptureFixture) -> None:
    """Since the last line, not since the beginning: what limits changes."""
    spent = Spent()
    spent.parts = {"imports": 20.0, "data_wait": 50.0}
    line = ProgressLine(10, shown=True, target=0.23, timeline=spent)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO), line:
        spent.parts = {"imports": 20.0, "data_wait": 51.0, "step": 9.0}
        line.step(1, 1, 2.0, 0.1, None, None)
        line.scored(1, 0.12345)
        spent.parts |= {"data_wait": 54.0, "step": 16.0, "eval_forward": 99.0}
        line.step(2, 2, 2.0, 0.1, 12.34, 90.0)
    assert [message.partition("lr 0.1  ")[2] or message for message in caplog.messages] == [
        "mAP not evaluated, target 0.23  limited by compute",
        "epoch 1: mAP 0.1235, target 0.23",
        "12.3 images/s  at most 1.5 min left  mAP 0.1235, target 0.23  limited by data: 30% of the time",
    ]


def test_a_resumed_run_knows_its_map(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), ProgressLine(10, shown=True, target=0.23, mean_ap=0.2) as line:
        line.step(1, 1, 2.0, 0.1, None, None)
    assert caplog.messages[0].endswith("mAP 0.2000, target 0.23")


def test_on_a_terminal_they_have_a_line_of_their_own() -> None:
    terminal = Terminal()
    with logged_to(terminal), ProgressLine(4000, shown=True, target=0.23, mean_ap=0.2) as line:
        line.step(2000, 12, 2.0, 0.0025, 1234.5, 90.0)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert re.search(r"at most 1.5 min left *\r?\nmAP 0.2000, target 0.23", shown)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (40, "40 s"), (90, "1.5 min"), (3599, "60.0 min"), (9000, "2.5 h")]
)
def test_the_time_that_is_left(seconds: float, words: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), ProgressLine(10, shown=True) as line:
        line.step(5, 1, 2.0, 0.1, 12.34, seconds)
    assert caplog.text.strip().endswith(f"at most {words} left")


def test_a_bar_that_is_seen_and_lines_above_it(caplog: pytest.LogCaptureFixture) -> None:
    terminal = Terminal()
    with caplog.at_level(logging.INFO), logged_to(terminal), ProgressLine(4000, shown=True) as line:
        line.step(2000, 12, 2.0, 0.0025, 1234.5, 90.0)
        line.say("epoch 1: mAP [0.5]")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    bar = max(re.findall("[━╸╺]+", shown), key=len)
    assert len(bar) >= 60, "of 100 columns"
    assert "step 2000/4000  epoch 12  loss 2.000  lr 0.0025  1234.5 images/s  at most 1.5 min left" in shown
    assert "\nepoch 1: mAP [0.5]\n" in shown.replace("\r", "\n")


def test_a_line_that_is_wider_than_the_terminal_is_cut_and_stays_one() -> None:
    terminal = Terminal()
    with logged_to(terminal), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "30")
        with ProgressLine(4000, shown=True) as line:
            line.step(2000, 12, 2.0, 0.0025, 1234.5, 90.0)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "step 2000/4000  epoch 12  los…" in shown
    assert "1234.5" not in shown


def test_nothing_where_quiet_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    terminal = Terminal()
    with caplog.at_level(logging.INFO), logged_to(terminal, logging.WARNING), ProgressLine(10, shown=True) as line:
        line.step(5, 1, 2.0, 0.1, 12.34, 90.0)
        line.say("epoch 1")
    assert terminal.getvalue() == ""


def test_a_terminal_that_is_gone_ends_no_run() -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    stream = Unfailing(Gone())
    with logged_to(stream), ProgressLine(10, shown=True) as line:
        line.step(5, 1, 2.0, 0.1, 12.34, 90.0)
        line.say("epoch 1")
    assert isinstance(stream.refused, BrokenPipeError)


# run.log


def test_the_log_of_a_run_keeps_what_a_terminal_shows_and_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, other = tmp_path / "run.log", logging.getLogger("other")
    caplog.set_level(logging.INFO)
    with logged_to(Terminal()), text_log(path), ProgressLine(10, shown=True) as line:
        line.say("seed \x1b[2J 5")
        line.step(5, 1, 2.0, 0.1, None, None)
        other.info("of a library")
        other.debug("of a library, in detail")
    logging.getLogger("ssd").info("after the run")
    lines = path.read_text().splitlines()
    assert [text.split(" ", 2)[2] for text in lines] == [
        r"seed \x1b[2J 5",
        "step 5/10  epoch 1  loss 2.000  lr 0.1",
        "of a library",
    ]
    assert re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", lines[0])
    with text_log(path):
        logging.getLogger("ssd").info("a resumed run goes on")
    assert len(path.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("error", "words", "trace"),
    [
        (MachineError("no room"), "the run ended here: no room", False),
        (KeyboardInterrupt(), "the run ended here: KeyboardInterrupt()", False),
        (ZeroDivisionError("a defect"), "the run ended here: a defect", True),
    ],
)
def test_why_a_run_ended(error: BaseException, words: str, trace: bool, tmp_path: Path) -> None:
    with pytest.raises(type(error)), text_log(tmp_path / "run.log"):
        raise error
    text = (tmp_path / "run.log").read_text()
    assert words in text
    assert ("Traceback" in text) == trace


def test_other_ranks_keep_no_log_and_a_full_disk_ends_no_run() -> None:
    with text_log(None):
        logging.getLogger("ssd").info("x")
    with text_log(Path("/dev/full")):
        logging.getLogger("ssd").info("x")
    assert all(type(one).__name__ != "_File" for one in logging.getLogger().handlers)
