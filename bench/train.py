"""Training rate of a config, the share of the peak arithmetic that is, and the share of a step that each part takes.

    python bench/train.py --name nvidia --config H100x1x1 [--data_dir D] [--key value ...] [--quick]

The rate is that of a whole run, started as users start one: by run_training.sh, with the vendor's environment file and
one process a device. summary.json says the rate. Two backends are timed. `synthetic` repeats a few micro-batches, in
epochs as long as COCO 2017's, so that neither the host nor the end of an epoch limits the device. Where data_dir is
given, the backend of the config is timed on its JPEGs. A short run first finds how many steps fit into 60 seconds, and
400 steps at most are timed. The first logging interval is left out.

The parts of a step are timed in this process on one device, after all runs, so that this process holds no device memory
while a run is timed. Device events time them, or the clock on the CPU. A step that is replayed as a CUDA graph has no
parts, so cuda_graph is off for them. Nothing is pretrained, because a step takes as long with any weights. Keys are
those of a run.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import parser, write_row
from torch import Tensor, nn

from ssd.boxes import default_boxes
from ssd.compute.copies import side_copies
from ssd.compute.device import Abilities
from ssd.compute.laps import Laps
from ssd.compute.precision import LossScaler
from ssd.compute.ranks import Ranks
from ssd.compute.step import TrainStep
from ssd.config import Config, resolve
from ssd.data.resident import ResidentLoader
from ssd.measure.short_run import INTERVALS, MOST_STEPS, enough_steps, timed_run
from ssd.mlperf.limits import TRAIN_SAMPLES
from ssd.model import build_model
from ssd.ops import Ops
from ssd.run.evaluation import input_channels
from ssd.run.schedule import applied_learning_rate
from ssd.run.sources import open_sources
from ssd.vendor import Vendor, load_vendor, require_machine, select_ops

MOST_SECONDS = 60
"""A timed run ends at so many seconds, or at MOST_STEPS."""
SYNTHETIC = ["--data_backend", "synthetic", "--crop_op", "reference", "--synthetic_samples", str(TRAIN_SAMPLES[0])]
SYNTHETIC += ["--synthetic_batches", "4"]


def main(argv: Sequence[str] | None = None) -> int:
    """One row a backend."""
    flags = parser(__doc__)
    flags.add_argument(
        "--steps", type=int, help=f"steps of a timed run (default: {MOST_SECONDS} s, {MOST_STEPS} at most)"
    )
    asked, keys = flags.parse_known_args(argv)
    resolved = resolve([*keys, "--no-pretrained"])
    vendor = load_vendor(resolved.config.name)
    require_machine(vendor, resolved)
    backends: list[list[str]] = [SYNTHETIC]
    if resolved.config.data_dir and resolved.config.data_backend != "synthetic":
        backends.append([])
    rates = []
    for backend in backends:
        rates.append(rate([*keys, *backend], INTERVALS if asked.quick else asked.steps))
    for backend, timed in zip(backends, rates, strict=True):
        config = resolve([*keys, *backend, "--no-pretrained"]).config
        row = {
            "vendor": config.name,
            "config": config.config,
            "data_backend": config.data_backend,
            "changed": {key: str(value) for key, value in changed(config, resolve(named(config)).config).items()},
            **timed,
            "share_of_step": shares(config, vendor, steps=3 if asked.quick else 20),
        }
        write_row("train", asked, vendor, row)
    return 0


def named(config: Config) -> list[str]:
    """The command line of the named config alone."""
    return ["--name", config.name, "--config", config.config]


def changed(config: Config, plain: Config) -> dict[str, Any]:
    """Keys that differ from the named config, folders of this machine left out."""
    return {
        key: value
        for key, value in config.model_dump().items()
        if value != getattr(plain, key) and not isinstance(value, Path) and not isinstance(getattr(plain, key), Path)
    }


def rate(keys: Sequence[str], steps: int | None) -> dict[str, Any]:
    """images/s and its share of the peak, from the summary of a run with these keys. steps: None: as many as fit."""
    with tempfile.TemporaryDirectory() as folder:
        steps = steps or enough_steps(keys, MOST_SECONDS, Path(folder, "probe"))
        summary = timed_run(keys, steps, Path(folder, "run"))
    taken = ("images_per_s", "images_per_s_per_device", "mfu", "peak", "global_batch", "steps")
    return {key: summary[key] for key in taken}


def shares(config: Config, vendor: Vendor, steps: int) -> dict[str, float]:
    """Median share 0..1 of a step that each of its parts takes, in the order they run."""
    device = vendor.set_up(config, 0)
    ops, _ = select_ops(vendor, config)
    channels = input_channels(config)
    network, _ = build_model(
        seed=0,
        num_classes=config.num_classes,
        width=config.width,
        in_channels=channels,
        head_layout=config.head_layout,
    )
    model = vendor.convert_model(network, config, device)
    optimizer = vendor.make_optimizer(model, config, applied_learning_rate(config))
    scaler = LossScaler(optimizer, device, config.precision)
    abilities = vendor.abilities(device)
    parts = Parts(abilities)
    step = TrainStep(
        MarkedModel(model, parts),
        marked_ops(ops, parts),
        default_boxes().to(device),
        lambda loss: parts.after("backward", lambda: scaler.backward(loss)),
        device,
        precision=config.precision,
        channels=channels,
        channels_last=config.nhwc,
        non_blocking=abilities.pinned_memory,
        copies=side_copies(abilities),
    )
    loader, _ = open_sources(config, Ranks(), 0, abilities)
    if isinstance(loader, ResidentLoader):
        loader.crop = ops.crop
    with closing(loader.epoch(1)) as batches:
        batch = next(batches)
    taken: dict[str, list[float]] = defaultdict(list)
    model.train()
    for number in range(-2, steps):
        parts.begin()
        step(batch)
        parts.after("optimizer", scaler.step)
        optimizer.zero_grad()
        for part, share in parts.end().items():
            if number >= 0:
                taken[part].append(share)
    return {part: round(statistics.median(values), 4) for part, values in taken.items()}


class Parts:
    """Marks along one step: the time from one to the next belongs to the part that the later one names."""

    def __init__(self, abilities: Abilities) -> None:
        self._abilities = abilities
        self._laps = Laps(abilities)

    def begin(self) -> None:
        """A step starts; nothing is under way on the device."""
        self._abilities.synchronize()
        self._laps = Laps(self._abilities)
        self._laps.mark("")

    def mark(self, part: str) -> None:
        """What ran since the last mark was `part`. Without timed events the device is waited for: nothing overlaps."""
        if not self._abilities.timed_events:
            self._abilities.synchronize()
        self._laps.mark(part)

    def after(self, part: str, call: Callable[[], Any]) -> Any:
        """Run a part and mark its end."""
        result = call()
        self.mark(part)
        return result

    def end(self) -> dict[str, float]:
        """Share 0..1 of the step by part."""
        self._abilities.synchronize()
        seconds = self._laps.seconds()
        whole = sum(seconds.values())
        return {part: value / whole for part, value in seconds.items()}


class MarkedModel(nn.Module):
    """The model, with marks after its forward pass and between the loss's backward pass and its own."""

    def __init__(self, model: nn.Module, parts: Parts) -> None:
        super().__init__()
        self.model, self.parts = model, parts

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Locations and logits; a mark each time the gradient of one of them is there."""
        outputs = self.parts.after("forward", lambda: self.model(images))
        for output in outputs:
            output.register_hook(lambda gradient: self.parts.mark("loss, backward"))
        return outputs


def marked_ops(ops: Ops, parts: Parts) -> Ops:
    """The ops of a training step, with a mark after each; what comes before the first is the copy to the device."""

    def augment(*arguments: Any, **options: Any) -> Tensor:
        parts.mark("copy")
        return parts.after("augment", lambda: ops.augment(*arguments, **options))

    def encode(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        return parts.after("encode", lambda: ops.encode(*arguments, **options))

    def loss(*arguments: Any, **options: Any) -> Tensor:
        return parts.after("loss", lambda: ops.loss(*arguments, **options))

    return replace(ops, augment=augment, encode=encode, loss=loss)


if __name__ == "__main__":
    sys.exit(main())
