"""`compare A B --assert-equal`: compares the records of two runs, and the tensors of their checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ssd.config.keys import PLACE
from ssd.config.vendor_keys import keys_of_roles
from ssd.errors import DataError
from ssd.report.equality import BATCHES, Parting, Verdict, differing_keys, hold, read_config, read_kept
from ssd.run.checkpoint import CHECKPOINT, Checkpoint, load_checkpoint

__all__ = ["held_to_each_other"]

NO_STEPS = "A run kept no record of its steps, as older commits did: the mean losses of logging intervals are compared."
IDS_ONLY = (
    "With data_backend dali the ids and draws of the batches are compared, and nothing else: DALI decodes the pixels, "
    "and does not promise the same ones twice, so losses and weights may differ."
)


def held_to_each_other(one: Path, other: Path, tolerance: float) -> Verdict:
    """The verdict on two runs' folders.

    tolerance: the largest difference of two numbers, relative to the larger one. With 0 they must be equal bit for bit.
    Raises DataError where a folder is not that of a run, and where nothing can be compared.
    """
    kept, kept_of_other = read_kept(one), read_kept(other)
    config, config_of_other = read_config(one), read_config(other)
    dali = "dali" in (config.get("data_backend"), config_of_other.get("data_backend"))
    compared, partings = hold(kept, kept_of_other, tolerance, only=BATCHES if dali else ())
    notes = [] if kept.values["loss"] and kept_of_other.values["loss"] else [NO_STEPS]
    if dali:
        notes.append(IDS_ONLY)
    else:
        count, apart, note = _checkpoints(one, other, tolerance)
        compared.update({"tensor": count} if count else {})
        notes += [note] if note else []
        partings = sorted([*partings, *apart], key=lambda part: part.step)
    if not compared:
        raise DataError(f"{one} and {other} have nothing in common that can be compared. {' '.join(notes)}")
    places = keys_of_roles(config, PLACE) | keys_of_roles(config_of_other, PLACE)
    differing = differing_keys(config, config_of_other, places)
    return Verdict((str(one), str(other)), tolerance, compared, partings, notes, differing)


def _checkpoints(one: Path, other: Path, tolerance: float) -> tuple[int, list[Parting], str]:
    """The number of tensors that were compared, those that differ, and the reason why none was compared, or ""."""
    try:
        saved, saved_by_other = load_checkpoint(one / CHECKPOINT), load_checkpoint(other / CHECKPOINT)
    except DataError as error:
        return 0, [], f"Checkpoints are not compared: {error}."
    if saved.step != saved_by_other.step:
        return 0, [], f"Checkpoints are not compared: they are of steps {saved.step} and {saved_by_other.step}."
    tensors, tensors_of_other = dict(_tensors(saved)), dict(_tensors(saved_by_other))
    epoch = -(-saved.step // saved.steps_per_epoch)
    apart = [
        parting
        for name in {**tensors, **tensors_of_other}
        if (parting := _apart(saved.step, epoch, name, tensors.get(name), tensors_of_other.get(name), tolerance))
    ]
    return len(tensors), apart, ""


def _tensors(saved: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the model, in its order, and the optimizer's momentum of each parameter."""
    yield from saved.model.items()
    for number, state in saved.optimizer["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                yield f"{name} of parameter {number}", value


def _apart(
    step: int, epoch: int, name: str, one: Tensor | None, other: Tensor | None, tolerance: float
) -> Parting | None:
    """The parting of two tensors whose largest difference, relative to their largest value, is beyond the tolerance."""
    if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
        kinds = tuple("absent" if it is None else f"{it.dtype} {tuple(it.shape)}" for it in (one, other))
        return Parting(step, epoch, "tensor", name, (kinds[0], kinds[1]))
    unequal = (one != other) & ~(one.isnan() & other.isnan())
    if not unequal.any():
        return None
    a, b = one[unequal].double(), other[unequal].double()
    at = int((a - b).abs().nan_to_num(torch.inf, torch.inf).argmax())
    values, difference = (a[at].item(), b[at].item()), (a[at] - b[at]).abs().item()
    relative = difference / max(one.double().abs().max().item(), other.double().abs().max().item())
    return None if relative <= tolerance else Parting(step, epoch, "tensor", name, values, difference, relative)
