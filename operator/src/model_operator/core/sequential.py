"""An anytime-valid test of a share, which stays alert after a long healthy time.

Null hypothesis: whatever happened before, the next event is bad with a probability of at most
``limit``. For one alternative ``p > limit`` the likelihood ratio of a batch with ``bad`` of
``total`` events,

    (p / limit)^bad * ((1 - p) / (1 - limit))^(total - bad),

has a mean of at most 1 under every member of that hypothesis, because it grows with each bad event.
So has its power of 1/`BURST` (Jensen). Products of such factors that begin at any look are
nonnegative supermartingales with mean at most 1, and so is their mixture over alternatives and over
beginnings k = 0, 1, 2, ... with the weights

    w(k) = c / ((c + k) (c + k + 1)),      which add up to 1,

the weight of beginnings yet to come counted as it is. Ville's inequality: the probability that the
mixture *ever* reaches ``1 / alpha`` is at most ``alpha``, however often one looks, whenever one
stops. Beginning anew is what keeps the test from going deaf: good events of an hour ago do not
weigh against bad events of now, and the price is ``log(1 / w(k))`` instead of a debt that grows
with every good event. All beginnings of one alternative obey the same recursion, so that the state
is one number for each alternative.

Sources: H. Robbins, "Statistical methods related to the law of the iterated logarithm" (1970), for
mixtures; M. Pollak, "Optimal detection of a change in distribution" (1985), for the sum over
beginnings; J. Shin, A. Ramdas, A. Rinaldo, "E-detectors" (2023), for both with e-processes. Theirs
bounds the average run length; the weights above bound the probability itself.

The power 1/`BURST` is for bursts: where events come in groups of up to that many that are good or
bad together (one broken connection, one full queue), a group has the factor that a single event has
in the formula above, and the bound still holds. The price is `BURST` times as much evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

BURST = 4.0
"""How many events may share one fate without being evidence more than once."""

HORIZON = 600
"""The weights' c: for about so many looks a new beginning costs nearly the same."""

SHARES = (0.15, 0.15, 0.2, 0.5)
"""Prior weights of the alternatives, weak to strong: a strong failure hurts most by the second."""

SMALLEST_LIMIT = 1e-6
"""Stands for a limit of zero, of which no likelihood ratio can be formed."""

_FIRST_ODDS = 2.5
_STRONG = 0.6
_LARGEST_EXPONENT = 600.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence against one alternative's absence.

    Attributes:
        mixture: Its part of the mixture over beginnings.
        run: Logarithm of the evidence since the most damning beginning (CUSUM).
        bad: Bad events since then.
        total: Events since then.
        since: When that was, seconds since the epoch.
    """

    mixture: float = 0.0
    run: float = 0.0
    bad: float = 0.0
    total: float = 0.0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Mixture:
    """State of one test.

    Attributes:
        beginnings: How many there were.
        evidence: One for each alternative.
    """

    beginnings: int = 0
    evidence: tuple[Evidence, ...] = (Evidence(),) * len(SHARES)

    @property
    def e_value(self) -> float:
        """The mixture: at most ``alpha`` likely ever to reach ``1 / alpha`` for a healthy one."""
        reserve = HORIZON / (HORIZON + self.beginnings)
        return reserve + sum(one.mixture for one in self.evidence)

    @property
    def suspicion(self) -> float:
        """Evidence since the most damning look, with nothing paid for having chosen it.

        It proves nothing, but is quicker than proof: a reason to wait.
        """
        return math.exp(min(max(one.run for one in self.evidence), _LARGEST_EXPONENT))

    @property
    def strongest(self) -> Evidence:
        """What says most against it; its counts are what a person should read."""
        return max(self.evidence, key=lambda one: one.mixture)


def alternatives(limit: float) -> tuple[float, ...]:
    """Shares of bad events to look for, weak to strong, evenly spaced in log-odds.

    They reach from 2.5 times the limit's odds to 60 %, or beyond where the limit is high. For a
    limit of 1 %: 2.5 %, 9 %, 28 % and 60 %.
    """
    low = math.log(limit / (1 - limit)) + math.log(_FIRST_ODDS)
    high = max(math.log(_STRONG / (1 - _STRONG)), low + 1.0)
    step = (high - low) / (len(SHARES) - 1)
    return tuple(1 / (1 + math.exp(-(low + step * index))) for index in range(len(SHARES)))


def observe(mixture: Mixture, *, bad: float, total: float, limit: float, now: float) -> Mixture:
    """Take in a batch of events that no earlier batch had.

    Args:
        mixture: The state before.
        bad: Bad events of the batch.
        total: All events of the batch; with none, nothing changes.
        limit: Largest healthy share, 0 to 1 (exclusive). It may differ from batch to batch, as long
            as it does not depend on the batch itself.
        now: When the batch ended, seconds since the epoch; for the report only.
    """
    if total <= 0:
        return mixture
    limit = max(limit, SMALLEST_LIMIT)
    good = total - bad
    ratios = tuple(
        bad * math.log(share / limit) + good * math.log((1 - share) / (1 - limit))
        for share in alternatives(limit)
    )
    return observe_ratios(mixture, ratios, bad=bad, total=total, now=now)


def observe_ratios(
    mixture: Mixture, ratios: tuple[float, ...], *, bad: float, total: float, now: float
) -> Mixture:
    """Take in a batch by its log-likelihood ratios, one for each alternative.

    Each ratio's exponential must have a mean of at most 1 under the hypothesis, given the past.
    """
    k = mixture.beginnings
    weight = HORIZON / ((HORIZON + k) * (HORIZON + k + 1))
    return replace(
        mixture,
        beginnings=k + 1,
        evidence=tuple(
            _add(one, prior * weight, ratio / BURST, Evidence(0, 0, bad, total, now))
            for one, prior, ratio in zip(mixture.evidence, SHARES, ratios, strict=True)
        ),
    )


def _add(one: Evidence, weight: float, ratio: float, batch: Evidence) -> Evidence:
    # Cutting a factor off from above keeps its mean at most 1, and floats finite.
    mixture = (one.mixture + weight) * math.exp(min(ratio, _LARGEST_EXPONENT))
    mixture = min(mixture, math.exp(_LARGEST_EXPONENT))
    if one.run <= 0:
        return Evidence(mixture, ratio, batch.bad, batch.total, batch.since)
    return Evidence(
        mixture, one.run + ratio, one.bad + batch.bad, one.total + batch.total, one.since
    )
