"""What a candidate must be before its first request, beside loaded and warmed up."""

from __future__ import annotations

from model_operator.api.types import CandidateStatus
from model_operator.core.signatures import Signatures, difference
from model_operator.core.view import View

SIGNATURE_CHANGED = "SignatureChanged"
SIGNATURE_UNKNOWN = "SignatureUnknown"


def refusal(view: View, candidate: CandidateStatus) -> str | None:
    """Why the candidate may not take stable's place, None when nothing speaks against it."""
    if not _is_compared(view, candidate):
        return None
    known = view.observed.signatures.known
    mine, stables = known.get(candidate.revision), known.get(view.stable or "")
    found = difference(mine, stables) if mine is not None and stables is not None else None
    if found is None:
        return None
    return (
        f"{candidate.revision} cannot take the place of {view.stable}: {found}; where clients "
        "are ready for that, set spec.rollout.preflight.signature to Any and retry it"
    )


def unread(view: View, candidate: CandidateStatus) -> str | None:
    """What is being waited for before the comparison, None when it can be made or never can."""
    if not _is_compared(view, candidate):
        return None
    awaited = view.observed.signatures.awaited & {candidate.revision, view.stable or ""}
    if not awaited:
        return None
    return f"the signature of {' and '.join(sorted(awaited))} is being read"


def uncompared(signatures: Signatures, candidate: str, stable: str | None) -> str | None:
    """Why the two were not compared, None when they were; for the record."""
    unknown = sorted({candidate, stable or candidate} - signatures.known.keys())
    if not unknown:
        return None
    return f"not compared with stable: no pod told the signature of {' and '.join(unknown)}"


def _is_compared(view: View, candidate: CandidateStatus) -> bool:
    """Before the first request only; and going back to a revision that served is never refused."""
    wanted = view.spec.rollout.preflight.signature == "Compatible"
    return wanted and candidate.percent == 0 and not candidate.warm
