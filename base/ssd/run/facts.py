"""The facts about a run that MLPerf's log and rules need, from its config. A run and a campaign use them."""

from __future__ import annotations

from ssd.config import Config
from ssd.data.decoded_cache import file_system
from ssd.mlperf.events import RunFacts
from ssd.run.schedule import applied_learning_rate

__all__ = ["run_facts"]


def run_facts(
    config: Config, seed: int, train_samples: int, eval_samples: int, backbone_sha256: str | None = None
) -> RunFacts:
    """The facts of a run. The caller gives what comes from files: the numbers of images, and the backbone's hash."""
    return RunFacts(
        submitter=config.submitter,
        system=config.system,
        division=config.division,
        seed=seed,
        global_batch=config.global_batch,
        batch_norm_span=config.train_batch_size * config.bn_group,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        base_learning_rate=applied_learning_rate(config),
        weight_decay=config.weight_decay_rate,
        momentum=config.momentum,
        warmup_steps=config.warmup,
        warmup_factor=config.warmup_factor,
        decay_epochs=config.lr_decay_epochs,
        decay_factor=config.lr_decay_factor,
        train_samples=train_samples,
        eval_samples=eval_samples,
        target_map=config.threshold,
        width=config.width,
        backbone_sha256=backbone_sha256 or "",
        precision=config.precision,
        decoded_cache=file_system(config.decoded_cache) if config.decoded_cache else "",
    )
