"""The self-checks of the chapters' exercises, one module per chapter.

An exercise in a chapter is three cells: the task (`{exercise}`), a scaffold tagged `exercise` that ends with a call of
its check, and the solution (`{solution}`) tagged `solution`. A check never raises, whatever the answer is: it returns a
`Verdict` that says what is missing. So a chapter runs to its end before anyone has solved anything.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from inspect import isroutine
from typing import Any

UNANSWERED = "put your answer in place of the dots, then run the cell again"


class NotYet(Exception):
    """What an answer lacks; the message is for the student and should teach."""


@dataclass(frozen=True)
class Verdict:
    """The result of a check, printed as one line."""

    solved: bool
    message: str

    def __repr__(self) -> str:
        return f"{'Solved' if self.solved else 'Not yet'}: {self.message}"


def self_check(check: Callable[[Any], str]) -> Callable[[Any], Verdict]:
    """Turn a function of an answer, which raises `NotYet` or returns a closing remark, into one that never raises."""

    @wraps(check)
    def checked(answer: Any) -> Verdict:
        try:
            return Verdict(True, check(_watched(answer)))
        except NotYet as lack:
            return Verdict(False, str(lack))
        except Exception as error:  # whatever a student's code may raise
            return Verdict(False, f"the answer cannot be used ({type(error).__name__}: {error})")

    return checked


def require(condition: Any, lack: str) -> None:
    """Raise `NotYet(lack)` unless `condition` holds."""
    if not condition:
        raise NotYet(lack)


def letters(answer: Iterable[str]) -> set[str]:
    """The statements that were chosen, in lower case, of those from a to e."""
    chosen = {str(letter).lower() for letter in answer}
    require(chosen <= set("abcde"), "give letters from a to e")
    return chosen


def _watched(answer: Any) -> Any:
    """The answer, or the function that computes it; neither dots nor None are an answer or a result."""
    if not isroutine(answer):
        require(answer is not None and answer is not ..., UNANSWERED)
        return answer

    @wraps(answer)
    def call(*arguments: Any, **named: Any) -> Any:
        return _watched(answer(*arguments, **named))

    return call
