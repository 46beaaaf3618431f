"""What a campaign says before its first run: what the rules will ask of it, and how long it will take."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssd.counts import evaluation_epochs
from ssd.mlperf.events import RunFacts
from ssd.mlperf.limits import (
    NO_CURRENT_ROUND,
    RESULTS,
    Convergence,
    forbidden_in_closed,
    olympic_mean,
    reference_convergence,
)

__all__ = ["Planned", "late_runs_needed", "plan_text"]


@dataclass(frozen=True)
class Planned:
    """A configuration about to be run. config: key -> value, as resolved; commit: the code's."""

    facts: RunFacts
    config: Mapping[str, Any]
    commit: str = "unknown"

    @property
    def epochs(self) -> int:
        """The last epoch."""
        return int(self.config["epochs"])

    @property
    def eval_epochs(self) -> tuple[int, ...]:
        """Epochs after which the model is evaluated; the last one always is."""
        return evaluation_epochs(self.epochs, self.config["eval_epochs"], self.config["eval_interval"])


def plan_text(planned: Planned, ruleset: str, runs: int, how_long: str) -> str:
    """The plan as text. how_long: what the runs take together, a sentence (ssd.plan.how_long)."""
    facts = planned.facts
    lines = [
        f"{runs} run{'s' * (runs > 1)} for {facts.submitter}, system {facts.system}: ruleset {ruleset}, "
        f"{facts.division} division",
        NO_CURRENT_ROUND,
    ]
    convergence = None if ruleset == "0.7.0" else reference_convergence(ruleset, facts.global_batch)
    lines += _convergence_lines(planned, ruleset, convergence)
    lines.append(f"How long: {how_long}")
    forbidden = forbidden_in_closed(facts, ruleset)
    if forbidden:
        verb = "forbids" if facts.division == "closed" else "would forbid"
        lines += [f"The closed division {verb}:", *(f"  {line}" for line in forbidden)]
    else:
        lines.append("The closed division forbids none of the hyper-parameters.")
    return "\n".join(lines)


def _convergence_lines(planned: Planned, ruleset: str, convergence: Convergence | None) -> list[str]:
    batch = planned.facts.global_batch
    if ruleset == "0.7.0":
        return ["Ruleset 0.7.0 has no reference convergence points."]
    if convergence is None:
        return [f"Global batch {batch}: beyond the reference's; every closed result fails the convergence check."]
    lines = [
        f"Global batch {batch}: the reference needs {convergence.mean_epochs:.2f} epochs ({convergence.origin}).",
        f"The least mean that passes, without the fastest and the slowest run, is {convergence.least_mean_epochs:.2f}.",
    ]
    if planned.facts.division == "open":
        lines.append("The open division is not held to it.")
    elif needed := late_runs_needed(planned.eval_epochs, convergence.least_mean_epochs):
        count, epoch = needed
        lines.append(f"With these evaluations {count} of {RESULTS} runs must converge at epoch {epoch} or later.")
    return lines


def late_runs_needed(eval_epochs: Sequence[int], least_mean: float) -> tuple[int, int] | None:
    """How many of five runs must converge at which evaluation or later, if the others converge one evaluation earlier.

    Returns (number of runs, epoch of the evaluation). Returns None when all evaluations are at the least mean or later,
    and when all are earlier.
    """
    at = bisect_left(eval_epochs, least_mean)
    if at == 0 or at == len(eval_epochs):
        return None
    early, late = eval_epochs[at - 1], eval_epochs[at]
    for count in range(1, RESULTS + 1):
        if olympic_mean([early] * (RESULTS - count) + [late] * count) >= least_mean:
            return count, late
    return None
