"""The time of one optimizer step, from a few constants that each mean something, and how they are fitted.

    step = floor + local_batch * image * device + hosts * log2(nodes)

- floor: what a step takes at no image at all: kernel launches, the optimizer, the all-reduce inside a host. ms.
- image: forward and backward of one image on the reference device, an A100-SXM with 80 GB at 400 W, round 1.1. ms.
- hosts: what each doubling of the nodes adds: the latency of an all-reduce over the network. ms.
- device: how much slower than the reference a device computes an image. It is a product of powers: of the power limit
  (400 W / its limit), of the link (PCIe), of the memory (40 GB HBM2, slower than 80 GB HBM2e), and of the software's
  age in rounds before 1.1.

The fit minimises Huber's loss of the relative error, so that a few odd systems do not bend it. It knows no system by
name. Chips without rows in rounds 1.0 and 1.1 take the A100's constants, with the time of an image scaled: by their own
rows where there are some, else by the ratio of the peaks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ssd.plan.rows import Device, Row

__all__ = ["FITTED_CHIP", "FITTED_ROUNDS", "Constants", "fit", "is_fitted", "scale_of_chip"]

FITTED_CHIP = "A100"
FITTED_ROUNDS = ("1.1", "1.0")
"""The rounds of the fitted rows, the newest first. The position of a round is the age of its software."""
REFERENCE_WATTS = 400
START = (4.6, 0.61, 0.2, 0.0, 0.0, 0.0, 0.0)
"""The start values of the fit. It converges from any values near them."""
RIDGE = 0.001
"""The weight that pulls the four exponents to 0. Without it, a fit on rows with one kind of link would be singular."""
HUBER = 1.345
"""Residuals above so many standard deviations count linearly (Huber 1964: 95% efficiency with normal errors)."""


@dataclass(frozen=True)
class Constants:
    """The constants that the fit finds. floor, image and hosts are in ms. The others are exponents; 0 means no effect.

    power: a device with half the power takes 2**power times as long. pcie, small_memory, older: the logarithm of the
    factor. chips: the logarithm of the factor of each other chip, from its own rows.
    """

    floor: float
    image: float
    hosts: float
    power: float
    pcie: float
    small_memory: float
    older: float
    chips: dict[str, float] = field(default_factory=dict)

    def step_ms(
        self, device: Device, local_batch: float, nodes: int, release: str = "1.1", slower: float = 1.0
    ) -> float:
        """The milliseconds of one step. slower: the factor (ratio of peaks) of a chip without a row of its own."""
        return sum(self.parts_ms(device, local_batch, nodes, release, slower).values())

    def parts_ms(
        self, device: Device, local_batch: float, nodes: int, release: str = "1.1", slower: float = 1.0
    ) -> dict[str, float]:
        """The milliseconds of one step by part: launch, arithmetic, communication."""
        image = self.image * slower * math.exp(_exponents(device, release) @ self._exponents())
        image *= math.exp(self.chips.get(device.chip, 0.0))
        return {
            "launch": self.floor,
            "arithmetic": image * local_batch,
            "communication": self.hosts * math.log2(nodes),
        }

    def _exponents(self) -> NDArray[np.float64]:
        return np.array([self.power, self.pcie, self.small_memory, self.older])


def _exponents(device: Device, release: str) -> NDArray[np.float64]:
    """The multipliers (4,) float64 of the exponents: log of the power ratio, PCIe or not, small memory or not, age."""
    if device.chip != FITTED_CHIP:
        return np.array([0.0, 0.0, 0.0, 0.0])
    age = FITTED_ROUNDS.index(release) if release in FITTED_ROUNDS else len(FITTED_ROUNDS) - 1
    watts = device.watts or REFERENCE_WATTS
    return np.array([math.log(REFERENCE_WATTS / watts), device.link == "pcie", device.memory_gb == 40, age], float)


def is_fitted(row: Row) -> bool:
    """Whether the fit uses rows like this one: an A100 of round 1.0 or 1.1."""
    return row.device.chip == FITTED_CHIP and row.round in FITTED_ROUNDS


def fit(rows: Sequence[Row]) -> Constants:
    """The constants that fit the rows best. Other chips get a factor from their own rows.

    Raises ValueError for fewer than 8 rows of A100 in rounds 1.0 and 1.1.
    """
    used = [row for row in rows if is_fitted(row)]
    if len(used) < 8:
        raise ValueError(f"{len(used)} rows of A100 in rounds 1.0 and 1.1: too few to fit seven constants")
    measured = np.log([row.step_ms for row in used])
    theta = np.array(START)
    for _ in range(60):
        found = _predict(theta, used)
        jacobian = np.column_stack(
            [(_predict(theta + step, used) - found) / 1e-6 for step in np.eye(len(theta)) * 1e-6]
        )
        residuals = measured - found
        scale = max(1.4826 * float(np.median(np.abs(residuals))), 0.005)
        weights = np.minimum(1.0, HUBER * scale / np.maximum(np.abs(residuals), 1e-12))
        ridge = np.diag([1e-9] * 3 + [RIDGE] * 4)
        normal = jacobian.T @ (weights[:, None] * jacobian) + ridge
        change = np.linalg.solve(normal, jacobian.T @ (weights * residuals) - ridge @ theta)
        theta = theta + 0.7 * change  # damped: the weights change with every step
        if np.abs(change).max() < 1e-9:
            break
    constants = Constants(*theta.tolist())
    others = {row.device.chip for row in rows} - {FITTED_CHIP}
    return replace(constants, chips={chip: scale_of_chip(constants, rows, chip) for chip in sorted(others)})


def _predict(theta: NDArray[np.float64], rows: Sequence[Row]) -> NDArray[np.float64]:
    constants = Constants(*theta.tolist())
    return np.log([max(constants.step_ms(row.device, row.local_batch, row.nodes, row.round), 1e-6) for row in rows])


def scale_of_chip(constants: Constants, rows: Sequence[Row], chip: str) -> float:
    """The logarithm of a chip's factor: how much slower than an A100 it computes an image. The median over its rows.

    Floor and hosts are those of the A100, because one row cannot separate them from the time of an image.
    """
    factors = []
    for row in rows:
        if row.device.chip == chip:
            rest = constants.floor + constants.hosts * math.log2(row.nodes)
            image = max(row.step_ms - rest, 0.1 * row.step_ms) / row.local_batch
            factors.append(math.log(image / constants.image))
    return float(np.median(factors))
