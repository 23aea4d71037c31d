"""The roles of revisions after the status was lost, from their records."""

from __future__ import annotations

from model_operator.api.times import parse_time
from model_operator.api.types import RolledBackStatus, StableStatus, replace
from model_operator.core.decision import Restored
from model_operator.core.observed import Past
from model_operator.core.rollback import ROLLED_BACK_LIMIT
from model_operator.core.view import Change, View


def restored(view: View) -> Change | None:
    """The status with stable in it again; None where nothing was lost or nothing is recorded.

    A backup that is restored has no status. Without this the revision that the spec names would
    count as the first of all and get everything without a canary.
    """
    status, past = view.status, view.observed.past
    if status.stable is not None or status.candidate is not None:
        return None
    dead = sorted((one for one in past if _was_rolled_back(one)), key=_rolled_back_s)
    stable = max(
        (one for one in past if one.promoted_time and one not in dead),
        key=_promoted_s,
        default=None,
    )
    if stable is None:
        return None
    restored_ = Restored(stable.revision)
    status = replace(
        status,
        stable=StableStatus(
            revision=stable.revision, digest=stable.digest, since_time=stable.promoted_time
        ),
        rolled_back=tuple(
            RolledBackStatus(
                revision=one.revision,
                reason=one.rolled_back_reason or "RolledBack",
                message="from its record, after the status was lost",
                time=one.rolled_back_time or view.time,
            )
            for one in dead[-ROLLED_BACK_LIMIT:]
        ),
        rollout=view.state("Idle", "Restored", f"{stable.revision} is stable"),
    )
    return Change(status, (restored_,))


def _was_rolled_back(one: Past) -> bool:
    return one.rolled_back_time is not None and _rolled_back_s(one) >= _promoted_s(one)


def _promoted_s(one: Past) -> float:
    return parse_time(one.promoted_time) if one.promoted_time else 0.0


def _rolled_back_s(one: Past) -> float:
    return parse_time(one.rolled_back_time) if one.rolled_back_time else 0.0
