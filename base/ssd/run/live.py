"""A run while it trains: its parts, how far it has come, and how its state is saved. `ssd.run.setup` makes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssd.boxes import DefaultBoxes
from ssd.compute.device import Abilities
from ssd.compute.ranks import Ranks
from ssd.compute.step import Step, Update
from ssd.config import Config
from ssd.data import TrainBatch, TrainLoader
from ssd.ops import Detections, Ops
from ssd.run.build import Scaler
from ssd.run.checkpoint import CHECKPOINT, PREVIOUS, Checkpoint, save_checkpoint
from ssd.run.loss_watch import LossWatch
from ssd.run.progress import Clock
from ssd.run.records import Records
from ssd.run.sampling import Sampling
from ssd.run.saves import Saves
from ssd.run.sources import EvalSource
from ssd.run.step_record import StepRecord
from ssd.run.stops import Stops
from ssd.vendor import Vendor

__all__ = ["Position", "Run", "Work"]


@dataclass
class Position:
    """How far a run has come. Only the loop of ssd.train changes it.

    step: the number of optimizer steps done. evaluations: (epoch, mAP) of each evaluation. open: the run was stopped
    after the last step of an epoch and before its evaluation, so the end of this epoch is not logged.
    """

    step: int = 0
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    open: bool = False

    def reached(self, target: float) -> bool:
        """Whether an evaluation has met the target mAP, unrounded."""
        return any(mean_ap >= target for _, mean_ap in self.evaluations)

    def is_best(self) -> bool:
        """Whether the last evaluation's mAP is above that of every earlier one."""
        *earlier, last = (mean_ap for _, mean_ap in self.evaluations)
        return all(last > mean_ap for mean_ap in earlier)


@dataclass(frozen=True)
class Work:
    """How an optimizer step is computed: its micro-batches, and what ends it.

    step: the eager or captured step of a micro-batch. trained: the model, wrapped in DDP where DDP averages the
    gradients. update: ends the optimizer step. whole: computes the last micro-batch and ends the step too, where one
    graph holds both, else None. detect: the detections of images, as a captured evaluation; None where it is eager.
    """

    step: Step
    trained: nn.Module
    update: Update
    whole: Step | None = None
    detect: Callable[[Tensor], Detections] | None = None

    def micro_batch(self, batch: TrainBatch, last: bool) -> Tensor:
        """Compute a micro-batch. last: whether `finish` follows. Returns its losses (B,) float32, detached."""
        if last:
            return (self.whole or self.step)(batch)
        with self.no_sync():
            return self.step(batch)

    def finish(self) -> None:
        """End the optimizer step after its last micro-batch, unless a graph has done it. Every rank must call it."""
        if self.whole is None:
            self.update()

    def no_sync(self) -> AbstractContextManager[None]:
        """A context in which gradients are added up but not averaged, for all micro-batches of a step but the last."""
        if isinstance(self.trained, nn.parallel.DistributedDataParallel):
            return self.trained.no_sync()
        return nullcontext()


@dataclass(frozen=True)
class Run:
    """A run that is ready to train. The fields are fixed; `position` and the state inside the objects change.

    model: the model that is evaluated and saved; work.trained wraps the same parameters. last_step: the number of the
    last optimizer step. defaults: the default boxes, on the device. backbone_sha256: "" for a run without pretrained
    weights. inputs: the SHA-256 of what the run is trained on, by name.
    """

    config: Config
    vendor: Vendor
    ranks: Ranks
    device: torch.device
    folder: Path
    seed: int
    loader: TrainLoader
    source: EvalSource
    last_step: int
    ops: Ops
    defaults: DefaultBoxes
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: Scaler
    work: Work
    sampling: Sampling
    backbone_sha256: str
    position: Position
    saves: Saves
    stops: Stops
    clock: Clock
    watch: LossWatch
    steps: StepRecord
    records: Records
    inputs: dict[str, str]

    @property
    def abilities(self) -> Abilities:
        """What the device can do."""
        return self.vendor.abilities(self.device)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the weights and of what belongs to them: its fields from `step` on, by name."""
        return {
            "step": self.position.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def copied_state(self) -> dict[str, Any]:
        """The state, with tensors of its own: the next steps do not change it."""
        copied: dict[str, Any] = _copied(self.state())
        return copied

    def save(self, name: str = CHECKPOINT, state: dict[str, Any] | None = None) -> None:
        """Write a checkpoint to file `name`, on rank 0. MachineError where the disk refuses.

        The newest one before is kept. state: what `copied_state` gave earlier; None for the current state.
        """
        with self.clock.measure("checkpoint"):
            begun = time.perf_counter()
            if self.ranks.is_rank_0:
                state = self.state() if state is None else state
                self._save(name, state)
                seconds, written = time.perf_counter() - begun, (self.folder / name).stat().st_size
                self.records.metrics.write("checkpoint", step=state["step"], seconds=seconds, bytes=written)
        if name == CHECKPOINT:
            self.saves.written()

    def _save(self, name: str, state: dict[str, Any]) -> None:
        checkpoint = Checkpoint(
            config=self.config.model_dump_json(),
            seed=self.seed,
            steps_per_epoch=self.loader.steps_per_epoch,
            evaluations=self.position.evaluations,
            seconds=self.clock.totals(),
            written=time.time(),
            categories=self.source.categories,
            inputs=self.inputs,
            logs=self.records.places(),
            **state,
        )
        before = self.folder / PREVIOUS if name == CHECKPOINT and self.saves.keep else None
        save_checkpoint(self.folder / name, checkpoint, before)


def _copied(value: Any) -> Any:
    """A value with a copy of each tensor in it."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
