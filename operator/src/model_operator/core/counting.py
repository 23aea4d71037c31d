"""What the tests on counts have in common: one step's counts, and from a test to a finding."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from model_operator.core.sequential import Mixture
from model_operator.core.verdict import (
    ANALYSIS_FAILED,
    BREACH_UNCONFIRMED,
    HEALTHY,
    INSUFFICIENT_DATA,
    Finding,
    Outcome,
)

SUSPICION = 10.0
"""Likelihood ratio of the last events above which nothing is said in favour of a revision. A
healthy one gets there now and then, waits for some good events, and goes on."""


_SILENT_MEAN_GAPS = 10.0
_SILENT_LONGEST_GAPS = 4.0


@dataclass(frozen=True, slots=True)
class Tally:
    """A sequential test and the counts of the present step.

    Attributes:
        mixture: The sequential test, over all steps.
        served: Events since the rollout began, over all steps.
        step: The step that the rest is about; None before the first look.
        bad: Bad events of this step.
        total: Events of this step.
        since: When this step was first looked at, seconds since the epoch.
        last: When a look last found an event of this step, or `since`.
        longest_gap_s: Longest time between two such looks, seconds.
    """

    mixture: Mixture = field(default_factory=Mixture)
    served: float = 0.0
    step: int | None = None
    bad: float = 0.0
    total: float = 0.0
    since: float = 0.0
    last: float = 0.0
    longest_gap_s: float = 0.0

    def counted(
        self, mixture: Mixture, *, step: int, bad: float, total: float, now: float
    ) -> Tally:
        """With one more look.

        The events of the look that first sees a step began in the step before: they count for the
        test, but not as evidence of this step.
        """
        served = self.served + total
        if self.step != step:
            return Tally(mixture, served, step, since=now, last=now)
        if not total:
            return replace(self, mixture=mixture)
        gap_s = 0.0 if self.is_silent(now) else now - self.last
        return Tally(
            mixture,
            served,
            step,
            self.bad + bad,
            self.total + total,
            self.since,
            now,
            max(self.longest_gap_s, gap_s),
        )

    def is_silent(self, now: float) -> bool:
        """Whether events stopped coming, by the pace at which they came in this step.

        Ten times the mean time between two of them is no accident (once in 20,000 gaps of a Poisson
        process). Four times the longest gap allows for a source that has news less often than it is
        asked, as a Prometheus that scrapes every 15 s.
        """
        if not self.total:
            return False
        mean_gap_s = (self.last - self.since) / self.total
        usual_s = max(_SILENT_MEAN_GAPS * mean_gap_s, _SILENT_LONGEST_GAPS * self.longest_gap_s)
        return now - self.last > usual_s


def judge(
    name: str,
    tally: Tally,
    *,
    limit: float,
    limit_text: str,
    min_events: int,
    alpha: float,
    collecting: bool,
    now: float,
) -> Finding:
    """What the counts say.

    - fail: the sequential test reached ``1 / alpha``.
    - insufficient: fewer than ``min_events`` events in this step, or none any more; or evidence
      against the revision that is strong (`SUSPICION`) but does not suffice to fail it.
    - pass: otherwise.

    Args:
        name: The metric's name.
        tally: The counts.
        limit: Largest healthy share.
        limit_text: The same in words.
        min_events: Events that a step needs to pass.
        alpha: Largest probability that a healthy revision ever fails.
        collecting: Whether this look brought new events.
        now: Seconds since the epoch.
    """
    e_value, needed = tally.mixture.e_value, 1 / alpha
    bad, total = tally.bad, tally.total
    if e_value >= needed:
        outcome, reason = Outcome.FAIL, ANALYSIS_FAILED
        worst = tally.mixture.strongest
        bad, total = worst.bad, worst.total
        rest = f"evidence {e_value:.3g} of {needed:.3g}"
    elif total < min_events:
        outcome, reason = Outcome.INSUFFICIENT, INSUFFICIENT_DATA
        rest = f"{min_events} events of this step are needed"
    elif tally.is_silent(now):
        outcome, reason = Outcome.INSUFFICIENT, INSUFFICIENT_DATA
        rest = f"no event for {now - tally.last:.0f} s"
    elif tally.mixture.suspicion >= SUSPICION:
        outcome, reason = Outcome.INSUFFICIENT, BREACH_UNCONFIRMED
        rest = "the last of them speak against it, which may be chance"
    else:
        outcome, reason, rest = Outcome.PASS, HEALTHY, ""
    share = bad / total if total else None
    counts = f"{bad:g} of {total:g} events are bad"
    if share is not None:
        counts += f" ({percent(share)})"
    return Finding(
        metric=name,
        outcome=outcome,
        reason=reason,
        value=share,
        threshold=limit,
        samples=int(total),
        message=f"{name}: {counts}, limit {limit_text}" + (f"; {rest}" if rest else ""),
        time=now,
        collecting=collecting and outcome is Outcome.INSUFFICIENT,
    )


def percent(share: float) -> str:
    """A share in percent, for people."""
    return f"{100 * share:.3g} %"
