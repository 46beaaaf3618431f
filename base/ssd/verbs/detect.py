"""The verb `detect`: finds objects on a user's own pictures with a checkpoint, and draws, prints and saves them."""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ssd.boxes import default_boxes
from ssd.counts import IMAGE_SIZE
from ssd.data import EvalBatch
from ssd.data.decode import resize
from ssd.data.photo import SUFFIXES, read_photo
from ssd.errors import EXIT_REACHED, ConfigError, DataError
from ssd.ops import REFERENCE
from ssd.report.picture import detected, draw_boxes
from ssd.run.evaluation import detect_all
from ssd.text import counted, one_line, visible
from ssd.verbs.restored import open_checkpoint, restore, saved_config

__all__ = ["detect_command"]

log = logging.getLogger(__name__)

NAME_BYTES = 200
"""So many bytes of a picture's name are kept. Usual file systems allow 255 bytes, with number and suffix."""


def detect_command(
    checkpoint: Path,
    images: Sequence[Path],
    output: Path,
    score: float,
    *,
    name: str | None = None,
    device: str | None = None,
    as_json: bool = False,
) -> int:
    """Draw detections of at least `score` on pictures, into `output`, and print their boxes in pixels of the picture.

    Boxes end at the picture's edges, and the best are printed first.

    checkpoint: its file, or the folder of its run. images: files, or folders of them; of a folder's files, those that
    begin with a dot or do not end as a picture are left out and counted. output: where it holds files already, a new
    folder beside it takes its place, so that pictures of two uses never mix. name, device: the vendor and the torch
    device type to run on; without both it is the CPU. as_json: print COCO results (see `_coco_results`) and no text.

    Raises ConfigError and MachineError as `restore` does. Raises DataError where no picture is named; and at the end,
    when all others are done, where some could not be read or drawn, with the reason of each.
    """
    if not 0 <= score <= 1:
        raise ConfigError(f"--score {score:g}: takes number, at least 0, at most 1.")
    saved = open_checkpoint(checkpoint)
    given: dict[str, Any] = {"device": device if name or device else "cpu", "compile": False}
    config = saved_config(saved, given | ({"name": name} if name else {}))
    files, bad = _files(images)
    listed = len(files) + len(bad)
    model, vendor, where = restore(saved, config)
    defaults, names = default_boxes().to(where), {label: text for label, (_, text) in enumerate(saved.categories, 1)}
    folder, image_ids, results = _free_folder(output), _image_ids(files), []
    for number, path in enumerate(files):
        try:
            picture = read_photo(path)
            rows = detect_all(model, [_batch(picture)], REFERENCE, defaults, vendor.abilities(where), config)
            rows = _inside(rows[rows[:, 5] >= score], picture.size)
            rows = rows[np.argsort(-rows[:, 5], kind="stable")]
            content = _drawn(picture, rows, names, path)
        except DataError as error:
            bad.append(str(error))
            continue
        target = folder / _target_name(number, path)
        folder.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        if as_json:
            results += _coco_results(rows, path, image_ids[number], saved.categories)
        else:
            _say(_lines(rows, names, path, target))
    if as_json:
        _say([json.dumps(results, indent=1)])
    if bad:
        reasons = "".join(f"\n  {one_line(reason)}" for reason in bad)
        raise DataError(f"{len(bad)} of {listed} could not be used, the others are done:{reasons}")
    return EXIT_REACHED


def _files(images: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The files to read, and the reason for each folder that cannot be listed. DataError where both are empty."""
    files: list[Path] = []
    bad: list[str] = []
    hidden = others = 0
    for path in images:
        try:
            entries = sorted(path.iterdir()) if path.is_dir() else None
        except OSError as error:
            bad.append(f"{path}: {error.strerror}")
            continue
        if entries is None:
            files.append(path)
            continue
        seen = [one for one in entries if not one.name.startswith(".")]
        pictures = [one for one in seen if one.suffix.lower() in SUFFIXES]
        hidden, others = hidden + len(entries) - len(seen), others + len(seen) - len(pictures)
        files += pictures
    if not files and not bad:
        named = ", ".join(map(str, images))
        raise DataError(f"no image ({' '.join(SUFFIXES)}) in {named}: name files, or folders of them")
    if hidden or others:
        log.info("left out: %d whose names begin with a dot, %d that do not end as a picture", hidden, others)
    return files, bad


def _free_folder(output: Path) -> Path:
    """The folder for the pictures: `output` if it is new or empty, else the first free name after it."""
    if not output.is_dir() or not any(output.iterdir()):
        return output
    base = output if output.name not in ("", "..") else Path(os.path.abspath(output))
    free = next(path for n in itertools.count(2) if not os.path.lexists(path := Path(f"{base}-{n}")))
    log.info("%s holds files already: the pictures go to %s", output, free)
    return free


def _batch(picture: Image.Image) -> EvalBatch:
    """A batch of one picture."""
    pixels = torch.empty(1, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)
    resize(np.array(picture), pixels[0])
    return EvalBatch(pixels, (0,), torch.tensor([picture.size]))


def _inside(rows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Rows (n, 7) float64 with boxes clipped to a picture of this width and height."""
    corners = np.nan_to_num(np.hstack([rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]]), nan=np.inf)
    corners = np.clip(corners, 0, [*size, *size])
    return np.hstack([rows[:, :1], corners[:, :2], corners[:, 2:] - corners[:, :2], rows[:, 5:]])


def _drawn(picture: Image.Image, rows: np.ndarray, names: Mapping[int, str], path: Path) -> bytes:
    """The picture with its boxes as the content of a JPEG file. DataError where it is too large for a JPEG."""
    file = io.BytesIO()
    image = draw_boxes(picture, detected(rows, names, 0))
    try:
        image.save(file, "JPEG", quality=92)
    except Exception as error:  # of whatever kind: this picture is at fault, others are not
        raise DataError(f"{path}: cannot be written as a JPEG file ({error})") from error
    return file.getvalue()


def _target_name(number: int, path: Path) -> str:
    """A unique name for a picture. Files of two folders may have the same name, and a name may be too long."""
    stem = one_line(path.stem).encode()[:NAME_BYTES].decode(errors="ignore")
    return f"{number:04d}-{stem}.jpg"


def _lines(rows: np.ndarray, names: Mapping[int, str], path: Path, target: Path) -> list[str]:
    """The printed lines of one picture: one for the picture, and one for each box with class, score and corners."""
    count = counted(len(rows), "detection") if len(rows) else "nothing"
    lines = [f"{one_line(str(path))}: {count} -> {one_line(str(target))}"]
    for _, left, top, width, height, found, label in rows.tolist():
        corners = f"({left:.0f}, {top:.0f}) to ({left + width:.0f}, {top + height:.0f})"
        lines.append(f"  {one_line(names[int(label)])} {found:.2f} at {corners}")
    return lines


def _image_ids(files: Sequence[Path]) -> list[int]:
    """COCO's ids if all files are named after ids (000000000139.jpg). Otherwise each file's position in the list."""
    stems = [path.stem for path in files]
    if all(stem.isascii() and stem.isdecimal() for stem in stems):
        ids = [int(stem) for stem in stems]
        if len(set(ids)) == len(ids):
            return ids
    return list(range(len(files)))


def _coco_results(
    rows: np.ndarray, path: Path, image_id: int, categories: Sequence[tuple[int | str, str]]
) -> list[dict[str, Any]]:
    """Detections as COCO's tools read them. bbox is left, top, width, height in pixels. Names are added for readers."""
    return [
        {
            "image_id": image_id,
            "category_id": categories[int(label) - 1][0],
            "bbox": [round(value, 2) for value in box],
            "score": round(found, 5),
            "file_name": str(path),
            "category": categories[int(label) - 1][1],
        }
        for _, *box, found, label in rows.tolist()
    ]


def _say(lines: Sequence[str]) -> None:
    """Write lines to standard output."""
    sys.stdout.write("".join(f"{visible(line)}\n" for line in lines))
