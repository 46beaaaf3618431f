"""report.html, and the page of a comparison, in a real headless Chromium: `make test-browser` names it and axe-core."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd.report.log_story import story_of_log
from ssd.report.page import write_report
from ssd.report.side_by_side import as_page
from ssd.report.story import story_of_run
from ssd.verbs.sides import read_sides

pytestmark = pytest.mark.slow

CHROMIUM, AXE = os.environ.get("SSD_CHROMIUM", ""), os.environ.get("SSD_AXE", "")
if not CHROMIUM:
    pytest.skip("make test-browser names Chromium", allow_module_level=True)

Browse = Callable[..., str]
RUN_AXE = """
<script>%s</script><script>
axe.run(document, {resultTypes: ["violations"]}).then(found => {
  const told = found.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html.slice(0, 120))]);
  const box = document.createElement("pre"); box.id = "axe"; box.textContent = JSON.stringify(told);
  document.body.append(box);
});
</script></body>"""


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Open a page; the document as Chromium has it then. What it logs and asks of the network goes to two files."""

    def run(page: Path, *flags: str) -> str:
        words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        words += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=20000"]
        words += [f"--log-net-log={tmp_path / 'net.json'}", *flags]
        words += [] if any(flag.startswith("--screenshot") for flag in flags) else ["--dump-dom"]
        ended = subprocess.run([*words, page.as_uri()], capture_output=True, text=True, timeout=300, check=True)
        (tmp_path / "said.txt").write_text(ended.stderr)
        return ended.stdout

    return run


@pytest.fixture
def page(run_folder: Path) -> Path:
    path = run_folder / "report.html"
    write_report(story_of_run(run_folder), path)
    return path


@pytest.fixture
def page_of(page: Path, tmp_path: Path) -> Callable[[str], Path]:
    """The page of a run, of a bare result log, or of a comparison of that log with published systems."""

    def write(kind: str) -> Path:
        log = tmp_path / "result_0.txt"
        log.write_text(LOG)
        if kind == "log":
            write_report(story_of_log(log), page)
        elif kind == "compare":
            page.write_text(as_page(read_sides([str(log), "1.1 NVIDIA", "BI-V100"])), encoding="utf-8")
        return page

    return write


def requested(folder: Path) -> set[str]:
    """Hosts that the page asked for something; those that Chromium calls by itself are its maker's."""
    urls = re.findall(r'"url":\s*"https?://([^/":]+)', (folder / "net.json").read_text())
    return {host for host in urls if not host.endswith((".google.com", ".googleapis.com", ".gvt1.com"))}


@pytest.mark.parametrize("kind", ["run", "compare"])
def test_no_error_is_logged_and_nothing_is_asked_of_the_network(
    browse: Browse, page_of: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    browse(page_of(kind))
    assert "CONSOLE" not in (tmp_path / "said.txt").read_text()
    assert requested(tmp_path) == set()


def test_an_error_and_a_request_would_be_seen(browse: Browse, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<img src="http://127.0.0.1:9/x.png"><script>throw new Error("seen")</script>')
    browse(page)
    assert "CONSOLE" in (tmp_path / "said.txt").read_text()
    assert requested(tmp_path) == {"127.0.0.1"}


def test_the_numbers_on_the_page_are_those_of_metrics_jsonl(browse: Browse, page: Path, run_folder: Path) -> None:
    shown = browse(page)
    records = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    for section, kind, name in (
        ("map", "evaluation", "AP"),
        ("loss", "train", "loss"),
        ("speed", "train", "images_per_s"),
    ):
        part = shown.split(f'<section id="{section}"')[1].split("</section>")[0]
        values = [float(one) for one in re.findall(r'<data value="([^"]+)"', part)]
        assert {record[name] for record in records if record["kind"] == kind} <= set(values)


def test_it_is_the_same_page_with_scripts_off(browse: Browse, page: Path, tmp_path: Path) -> None:
    """A page whose script paints it shows that scripts are off."""
    painted = tmp_path / "painted.html"
    painted.write_text("<body><script>document.body.style.background = 'red'</script>")

    def shot(page: Path) -> np.ndarray:
        browse(page, f"--screenshot={tmp_path / 'shot.png'}", "--window-size=1000,3000")
        return np.asarray(Image.open(tmp_path / "shot.png").convert("RGB"))

    with_scripts = shot(page)
    assert (shot(painted) == (255, 0, 0)).all()
    settings = {"profile": {"default_content_setting_values": {"javascript": 2}}}
    (tmp_path / "profile" / "Default" / "Preferences").write_text(json.dumps(settings))
    assert (shot(painted) == 255).all()
    assert (shot(page) == with_scripts).all()
    assert len(np.unique(with_scripts.reshape(-1, 3), axis=0)) > 50, "a page, and no empty one"


@pytest.mark.parametrize("scheme", [[], ["--blink-settings=preferredColorScheme=0"]], ids=["light", "dark"])
@pytest.mark.parametrize("kind", ["run", "log", "compare"])
def test_axe_finds_nothing_serious(
    browse: Browse, page_of: Callable[[str], Path], tmp_path: Path, scheme: list[str], kind: str
) -> None:
    """The page forbids scripts: axe runs in a copy that does not, with every table opened."""
    if not AXE:
        pytest.skip("make test-browser fetches axe-core")
    text = page_of(kind).read_text(encoding="utf-8").replace("<details>", "<details open>")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    text = text.replace("</body>", "").replace("</html>", RUN_AXE % Path(AXE).read_text(encoding="utf-8"))
    copy = tmp_path / "copy.html"
    copy.write_text(text, encoding="utf-8")
    found = re.search(r'<pre id="axe">(.*?)</pre>', browse(copy, *scheme), re.DOTALL)
    assert found, "axe did not end"
    told = json.loads(html.unescape(found.group(1)))
    assert [one for one in told if one[0] in ("serious", "critical")] == []


def _record(key: str, ms: int, value: object = None, **metadata: object) -> str:
    entry = {"time_ms": ms, "key": key, "value": value, "metadata": metadata}
    return f":::MLLOG {json.dumps(entry)}\n"


LOG = _record("submission_benchmark", 0, "ssd") + _record("run_start", 1000)
for _epoch in range(1, 6):
    LOG += _record("epoch_start", 10_000 * _epoch, epoch_num=_epoch)
    LOG += _record("epoch_stop", 10_000 * _epoch + 9000, epoch_num=_epoch)
LOG += _record("eval_accuracy", 60_000, 0.21, epoch_num=5) + _record("run_stop", 61_000, status="aborted")
