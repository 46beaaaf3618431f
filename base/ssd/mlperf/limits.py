"""What the rounds ask for: the one place that knows rulesets 0.7.0, 1.0.0 and 1.1.0.

Numbers that mlperf-logging has (reference convergence points, results a system) are read from it, not copied, so that
our answer before a run is the official checker's answer after it. The limits on hyper-parameters are those of the
training rules' table; the official checker tests most of them, and those it misses are tested here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mlperf_logging.benchmark_meta import get_result_file_counts
from mlperf_logging.mllog import constants

from ssd.errors import ConfigError
from ssd.mlperf.events import RunFacts
from ssd.mlperf.keys import BACKBONE, DECODED_CACHE, MOMENTUM, RESUMED, TARGET, WIDTH

if TYPE_CHECKING:
    from mlperf_logging.rcp_checker.rcp_checker import RCP_Checker

__all__ = [
    "BACKBONE_SHA256",
    "DEFAULT_RULESET",
    "NO_CURRENT_ROUND",
    "RESULTS",
    "RULESETS",
    "TARGET_MAP",
    "TRAIN_SAMPLES",
    "Convergence",
    "Violation",
    "closed_violations",
    "forbidden_in_closed",
    "init_limit_ms",
    "need_ruleset",
    "olympic_mean",
    "reference_convergence",
]

RULESETS = ("0.7.0", "1.0.0", "1.1.0")
"""The rounds whose "ssd" is this model; 0.6 has no log format of mlperf-logging's that we write."""
DEFAULT_RULESET = "1.1.0"
NO_CURRENT_ROUND = (
    "No current MLPerf round accepts this model: SSD-ResNet34 was retired after v1.1, and from v2.0 on `ssd` means"
    " another one. A package shows how a system stands beside the published rounds, by their own rules."
)

TARGET_MAP = 0.23
RESULTS: int = get_result_file_counts("training")[constants.SSD]
"""Results that make one score: 5."""
BACKBONE_SHA256 = "333f7ec4c6338da2cbed37f1fc0445f9624f1355633fa1d7eab79a91084c6cef"
"""The reference's backbone file, resnet34-333f7ec4.pth; torchvision has another one today."""
TRAIN_SAMPLES = (117_266, 118_287)
"""COCO 2017's training images with a box, or all."""
EVAL_SAMPLES = (4_952, 5_000)
"""Its validation images with a box, as the reference evaluates, or all, as published results also did."""


def need_ruleset(ruleset: str) -> str:
    """The ruleset itself. Raises ConfigError for one in which this model does not exist."""
    if ruleset not in RULESETS:
        raise ConfigError(f"ruleset {ruleset}: SSD-ResNet34 exists in {', '.join(RULESETS)} only. {NO_CURRENT_ROUND}")
    return ruleset


def init_limit_ms(ruleset: str) -> int:
    """Milliseconds that the rules allow between init_start and init_stop."""
    return (20 if ruleset == "0.7.0" else 30) * 60_000


def olympic_mean(values: Sequence[float]) -> float:
    """The mean without the least and the greatest value. A round scores times and counts epochs by it."""
    if len(values) < 3:
        raise ValueError(f"an olympic mean needs three values or more, not {len(values)}")
    return fmean(sorted(values)[1:-1])


@dataclass(frozen=True)
class Convergence:
    """How many epochs the reference needs at a global batch.

    least_mean_epochs: the least olympic mean of a submission's epochs that passes the check. origin: where the numbers
    come from, in words.
    """

    global_batch: int
    mean_epochs: float
    least_mean_epochs: float
    origin: str


@cache
def _points(ruleset: str) -> RCP_Checker:
    from mlperf_logging.rcp_checker.rcp_checker import RCP_Checker  # imports scipy, which takes half a second

    return RCP_Checker("training", ruleset, constants.SSD, verbose=False)


def reference_convergence(ruleset: str, global_batch: int) -> Convergence | None:
    """The reference convergence point for a closed result of this global batch. None where every result would fail.

    It follows the steps of the official checker on its pruned points. The point of the batch itself is taken. Without
    one, it interpolates between the two points around the batch. For a batch below all points it takes the smallest
    point. Raises ConfigError for ruleset 0.7.0, which had no such check.
    """
    if ruleset == "0.7.0":
        raise ConfigError("ruleset 0.7.0 has no reference convergence points: use 1.0.0 or 1.1.0")
    points, which = _points(need_ruleset(ruleset)), "pruned_rcps"
    below = points._find_top_min_rcp(global_batch, which)
    above = points._find_bottom_max_rcp(global_batch, which)
    if (record := points._find_rcp(global_batch, which)) is not None:
        origin = f"reference point of batch {global_batch}"
    elif below is not None and above is not None:
        _, record = points._create_interp_rcp(global_batch, below, above)
        origin = f"interpolated between batches {below['BS']} and {above['BS']}"
    elif above is not None:
        record = points._find_min_rcp(which)
        origin = f"the smallest reference point, batch {record['BS']}"
    else:
        return None
    mean = float(record["RCP Mean"])
    return Convergence(global_batch, mean, mean / float(record["Max Speedup"]), origin)


@dataclass(frozen=True)
class Violation:
    """A logged value that a rule forbids."""

    key: str
    value: Any
    rule: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value!r}: {self.rule}"


def forbidden_in_closed(facts: RunFacts, ruleset: str = DEFAULT_RULESET, *, resumed: bool = False) -> list[str]:
    """What the closed division forbids in a planned run. Each line has the config key, the value and the rule."""
    values = facts.records() | ({RESUMED: True} if resumed else {})
    return [
        str(replace(violation, key=_CONFIG_KEYS.get(violation.key, violation.key)))
        for violation in closed_violations(values, ruleset)
    ]


def closed_violations(values: Mapping[str, Any], ruleset: str = DEFAULT_RULESET) -> list[Violation]:
    """Values of a run that break a limit of the closed division. values: by log key. An absent key breaks none here."""
    found = []
    for key, (holds, rule) in _CLOSED.items():
        if key not in values:
            continue
        try:
            good = holds(values[key])
        except (TypeError, ValueError, IndexError):
            good = False  # a value of the wrong kind breaks the rule too
        if not good:
            found.append(Violation(key, values[key], rule))
    batch: Any = values.get(constants.GLOBAL_BATCH_SIZE)
    if ruleset != "0.7.0" and _whole(batch) and reference_convergence(ruleset, batch) is None:
        rule = f"ruleset {ruleset} has no reference convergence point for so large a batch: every result fails"
        found.append(Violation(constants.GLOBAL_BATCH_SIZE, batch, rule))
    return found


def _whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _decay_epochs(value: Any) -> bool:
    """[40, 50] * (1 + k/10) with one whole k: the same multiple of 4 and of 5."""
    first, second = value
    return _whole(first) and _whole(second) and first % 4 == 0 and second % 5 == 0 and first // 4 == second // 5


_CLOSED = {
    constants.GLOBAL_BATCH_SIZE: (_whole, "a whole number of images"),
    constants.GRADIENT_ACCUMULATION_STEPS: (_whole, "a whole number, 1 or more"),
    constants.MODEL_BN_SPAN: (_whole, "a whole number of images, 1 or more"),
    constants.OPT_NAME: (lambda value: value == constants.SGD, "the optimizer is SGD with momentum"),
    constants.OPT_LR_WARMUP_STEPS: (_whole, "a whole number of steps, 1 or more"),
    constants.OPT_LR_WARMUP_FACTOR: (
        lambda value: float(value) >= 0 and float(value).is_integer(),
        "a whole number, 0 or more",
    ),
    constants.OPT_LR_DECAY_BOUNDARY_EPOCHS: (
        _decay_epochs,
        "must be [40, 50] * (1 + k/10) for one whole k: the first a multiple of 4, the second the same multiple of 5"
        " (40,50  44,55  48,60  52,65 ...)",
    ),
    constants.OPT_LR_DECAY_FACTOR: (lambda value: value == 0.1, "fixed to the reference's 0.1"),
    constants.MAX_SAMPLES: (lambda value: value in (1, 50), "1 or 50"),
    constants.TRAIN_SAMPLES: (
        lambda value: value in TRAIN_SAMPLES,
        "COCO 2017: 117,266 images with a box, or all 118,287",
    ),
    constants.EVAL_SAMPLES: (lambda value: value in EVAL_SAMPLES, "COCO 2017: 4,952 images with a box, or all 5,000"),
    MOMENTUM: (lambda value: value == 0.9, "fixed to the reference's 0.9"),
    TARGET: (lambda value: value >= TARGET_MAP, f"the target is {TARGET_MAP}"),
    WIDTH: (lambda value: value == 1, "the model is the reference's, of full width"),
    BACKBONE: (
        lambda value: value == BACKBONE_SHA256,
        "training starts from the reference's backbone, resnet34-333f7ec4.pth (sha256 333f7ec4...)",
    ),
    DECODED_CACHE: (
        lambda value: value not in ("tmpfs", "ramfs"),
        "data starts on durable storage, which memory is not: decoded images may be kept on a disk",
    ),
    RESUMED: (lambda value: not value, "a result is one run without a break; a resumed one does not count"),
}
"""Log key -> (a test of the value, the rule in words)."""

_CONFIG_KEYS = {
    constants.GLOBAL_BATCH_SIZE: "global batch",
    constants.MODEL_BN_SPAN: "images that share batch norm",
    constants.OPT_LR_WARMUP_STEPS: "warmup",
    constants.OPT_LR_WARMUP_FACTOR: "warmup_factor",
    constants.OPT_LR_DECAY_BOUNDARY_EPOCHS: "lr_decay_epochs",
    constants.OPT_LR_DECAY_FACTOR: "lr_decay_factor",
    constants.TRAIN_SAMPLES: "training images",
    constants.EVAL_SAMPLES: "evaluation images",
    MOMENTUM: "momentum",
    TARGET: "threshold",
    WIDTH: "width",
    BACKBONE: "SHA-256 of backbone_path",
    DECODED_CACHE: "file system of decoded_cache",
    RESUMED: "resume",
}
"""Log key -> key of the config, for messages before a run. Words where it follows from several config keys."""
