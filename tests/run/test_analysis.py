"""The last evaluation looked into: AP of each category, and the interval and errors that hotcoco finds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ssd.data.index import ground_truth
from ssd.data.synthetic import make_synthetic
from ssd.run import analysis
from ssd.run.analysis import analyse, write_analysis
from ssd.run.evaluation import score


@pytest.fixture(scope="module")
def source() -> SimpleNamespace:
    """Twelve synthetic images; only the first eight are evaluated."""
    index, _ = make_synthetic(12, 4, seed=1)
    rows = np.arange(8)
    categories = list(zip(index.category_ids, index.category_names, strict=True))
    return SimpleNamespace(index=index, rows=rows, ground_truth=ground_truth(index, rows), categories=categories)


@pytest.fixture
def perfect(source: SimpleNamespace) -> np.ndarray:
    """Every annotated box of the evaluated images, found."""
    index, found = source.index, []
    for row in source.rows.tolist():
        for place in range(index.offsets[row], index.offsets[row + 1]):
            found.append([row, *index.bboxes[place].tolist(), 0.9, index.labels[place]])
    return np.array(found, dtype=np.float64)


def test_perfect_detections(source: SimpleNamespace, perfect: np.ndarray) -> None:
    told = analyse(source, perfect)
    assert [one["AP"] for one in told["categories"] if one["boxes"]] == pytest.approx([1.0] * 3)
    assert sum(one["boxes"] for one in told["categories"]) == len(perfect)
    assert told["errors"]["counts"] == dict.fromkeys(("Bkg", "Both", "Cls", "Dupe", "Loc", "Miss"), 0)
    assert told["interval"]["low"] == told["interval"]["high"] == pytest.approx(1.0)


def test_the_categories_mean_is_the_score_s(source: SimpleNamespace, perfect: np.ndarray) -> None:
    """A class taken for another, boxes that are off, objects that are missed."""
    perfect[::3, 1] += 0.2 * perfect[::3, 3]
    perfect[1::5, 6] = 1 + perfect[1::5, 6] % 3
    rows = perfect[: -len(perfect) // 4]
    told = analyse(source, rows)
    statistics = score(source, rows, "pycocotools")  # type: ignore[arg-type]
    known = [one for one in told["categories"] if one["AP"] is not None]
    assert np.mean([one["AP"] for one in known]) == pytest.approx(statistics[0])
    assert np.mean([one["AP50"] for one in known]) == pytest.approx(statistics[1])
    assert told["errors"]["counts"]["Cls"] > 0
    assert told["errors"]["counts"]["Miss"] > 0
    assert told["interval"]["low"] < statistics[0] < told["interval"]["high"]
    assert sum(one["detections"] for one in told["categories"]) == len(rows)


def test_no_detection_at_all(source: SimpleNamespace) -> None:
    told = analyse(source, np.zeros((0, 7)))
    assert [one["AP"] for one in told["categories"] if one["boxes"]] == [0.0] * 3
    assert told["interval"]["AP"] == 0


def test_a_bootstrap_that_would_take_too_long_is_left_out(
    source: SimpleNamespace, perfect: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "BOOTSTRAP_S", 0.0)
    write_analysis(tmp_path / "evaluation.json", source, perfect)
    told = json.loads((tmp_path / "evaluation.json").read_text())
    assert told["interval"] is None
    assert told["errors"]["ap_base"] == pytest.approx(1.0)
