"""Answers with a stated coverage: one class, or "cannot tell". `evaluation.conformal` finds the thresholds."""

from collections.abc import Sequence

COVERAGE = 0.9
CANNOT_TELL = "cannot tell"


def answer(chances: Sequence[float], names: Sequence[str], limit: float | None) -> str:
    """The one class that is left, or `CANNOT_TELL` where several or none are; empty without a limit.

    Args:
        chances: probabilities of the classes.
        names: of the classes.
        limit: as `conformal.threshold` returns it.
    """
    if limit is None:
        return ""
    left = [name for name, chance in zip(names, chances, strict=True) if 1 - chance <= limit]
    return left[0] if len(left) == 1 else CANNOT_TELL
