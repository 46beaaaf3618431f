"""`make bench`: its table, what it says of a benchmark that fails, and where its rows are explained.

The benchmarks are started as programs, by a Python that is warm.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_the_table_of_all_goals(root: Path, tmp_path: Path, tiny_coco: Path, warm_python: str) -> None:
    """One benchmark of it without images, two with them: rows with a status, and a last line that counts them."""
    command = [warm_python, str(root / "bench" / "table.py"), "--quick"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    for words, count, lacking in (
        (["--only", "images"], 4, 3),
        (["--only", "images", "detect", "--data_dir", str(tiny_coco)], 5, 1),
    ):
        rows = tmp_path / f"rows{count}.jsonl"
        done = subprocess.run(
            [*command, *words, "--output", str(rows)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env=environ,
        )
        assert done.returncode == 0, done.stderr
        items = [item for line in rows.read_text().splitlines() for item in json.loads(line)["items"]]
        assert len(items) == count
        counts = [sum(item["status"] == status for item in items) for status in ("met", "missed", "n/a")]
        met, missed, absent = counts
        assert done.stdout.splitlines()[-1] == f"goals: {met} met, {missed} missed, {absent} n/a"
        assert absent >= lacking
        for item in items:
            assert bool(item["reason"]) == (item["status"] != "met")
            assert bool(item["ours"]) == (item["status"] != "n/a")


def test_every_benchmark_of_the_table_is_explained(root: Path) -> None:
    lines = re.findall(r"^BENCHMARKS.*= \((.*)\)$", (root / "bench" / "table.py").read_text(), re.MULTILINE)
    page = (root / "docs" / "performance.md").read_text()
    found = re.findall(r"\w+", " ".join(lines))
    assert len(found) >= 10
    assert [name for name in found if f"`bench/{name}.py`" not in page] == []


def test_a_benchmark_that_fails_is_said(root: Path, tmp_path: Path, warm_python: str) -> None:
    command = [warm_python, str(root / "bench" / "table.py"), "--quick", "--only", "images", "--output"]
    command += [str(tmp_path / "rows.jsonl"), "--data_dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "not run: images: exit code 1" in done.stdout
    assert "instances_train2017.json: cannot be read" in done.stdout
    assert done.stdout.splitlines()[-1] == "goals: 0 met, 0 missed, 0 n/a"
