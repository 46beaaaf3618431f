"""Where a number of a result log comes from: the round that its path leads through, ours, or nobody says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssd.mlperf.notice import OURS, REPOSITORIES, UNKNOWN_ROUND, origin_of


@pytest.mark.parametrize(
    ("path", "ours", "expected"),
    [
        ("/a/training_results_v1.1/NVIDIA/results/x/ssd/result_0.txt", False,
         ("1.1", f"{REPOSITORIES}1.1/NVIDIA/results/x/ssd/result_0.txt")),
        ("/a/training_results_v0.7", False, ("0.7", f"{REPOSITORIES}0.7")),
        ("/a/training_results_v1.1/b", True, (OURS, "/a/training_results_v1.1/b")),
        ("/a/results/b", False, (UNKNOWN_ROUND, "/a/results/b")),
        ("/a/results/b", True, (OURS, "/a/results/b")),
        ("/a/training_results_v1/b", False, (UNKNOWN_ROUND, "/a/training_results_v1/b")),
    ],
)  # fmt: skip
def test_where_a_log_comes_from(path: str, ours: bool, expected: tuple[str, str]) -> None:
    assert origin_of(Path(path), ours) == expected
