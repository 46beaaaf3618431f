"""The figures of a made-up server of eight accelerators, in round numbers."""

from __future__ import annotations

from ssd.measure.copying import IMAGE_BYTES
from ssd.measure.limits import Figures

SERVER = Figures(
    cores=32,
    devices=8,
    shares_cores=False,
    batch=100,
    decode_core=200.0,
    decode_all=5000.0,
    read=9000.0,
    copy=10_000.0 * IMAGE_BYTES,
    step=1000.0,
    data_step=600.0,
    evaluation=2000.0,
    all_reduce=1e9,
    all_reduce_s=0.1,
)
