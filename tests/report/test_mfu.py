"""FLOP utilisation: the constant against a count of the model's operations, and looking peaks up."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ssd.model import SSD300
from ssd.report.mfu import GFLOP_PER_IMAGE, Peak, find_peak, mfu, share_of_peak


def test_flop_of_an_image_are_those_of_the_model() -> None:
    with torch.device("meta"):  # shapes alone, nothing is computed
        model, images = SSD300(), torch.empty(2, 3, 300, 300)
    with FlopCounterMode(display=False) as counter:
        locations, logits = model(images)
        (locations.sum() + logits.sum()).backward()
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(GFLOP_PER_IMAGE, abs=0.05)


def test_share_of_a_peak() -> None:
    assert mfu(5000, 989.4) == pytest.approx(0.4786, abs=1e-4)
    assert mfu(5000, None) is None


def test_the_whole_name_and_the_arithmetic_must_be_known() -> None:
    peaks = (Peak(r"Acme (X|Y)1", {"bf16": 10}, "its data sheet"), Peak(r"Acme X1", {"fp32": 2.5}, "its web page"))
    assert find_peak(peaks, "Acme Y1", "bf16") == (10, "10 TFLOP/s bf16, its data sheet")
    assert find_peak(peaks, "Acme X1", "fp32") == (2.5, "2.5 TFLOP/s fp32, its web page")
    for device, arithmetic in (("Acme X12", "bf16"), ("Old Acme X1", "bf16"), ("Acme Y1", "fp32")):
        assert find_peak(peaks, device, arithmetic) is None


ACME = (Peak("Acme X1", {"bf16": 989.4, "tf32": 400, "fp32": 50}, "its data sheet"),)


def test_the_share_names_its_peak() -> None:
    share, peak = share_of_peak(ACME, "Acme X1", "bf16", 5000)
    assert share == pytest.approx(0.4786, abs=1e-4)
    assert peak == "989.4 TFLOP/s bf16, its data sheet"


@pytest.mark.parametrize(("allowed", "words"), [(True, "400 TFLOP/s tf32"), (False, "50 TFLOP/s fp32")])
def test_float32_is_tf32_where_torch_may_use_it(allowed: bool, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    assert share_of_peak(ACME, "Acme X1", "fp32", 100)[1].startswith(words)


def test_no_share_where_it_is_not_known() -> None:
    unknown = (None, "")
    assert share_of_peak(ACME, "Acme X1", "fp16", 5000) == unknown
    assert share_of_peak((), "Acme X1", "bf16", 5000) == unknown
    assert share_of_peak(ACME, "Acme X1", "bf16", 5000, width=0.25) == unknown
    assert share_of_peak(ACME, "Acme X1", "bf16", 0) == unknown
    assert share_of_peak(ACME, "unknown", "bf16", 5000) == unknown
