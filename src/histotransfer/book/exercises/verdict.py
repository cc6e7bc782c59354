"""Chapter 12: a rule, what a design could have shown, and how many patients a verdict needs."""

from collections.abc import Callable

from scipy.stats import norm

from histotransfer.book.exercises import require, self_check

RULE = {(0.01, 0.09, 0.0): "supported here", (-0.02, 0.08, 0.0): "undecided", (-0.09, -0.01, 0.0): "contradicted here"}
RULE |= {(0.0, 0.08, 0.0): "undecided"}  # no difference at all is not excluded
RULE |= {(0.85, 0.93, 0.84): "supported here", (0.80, 0.90, 0.84): "undecided", (0.70, 0.83, 0.84): "contradicted here"}
NEEDED = norm.ppf(0.975) + norm.ppf(0.8)  # standard errors that a power of 0.8 at 95 % asks for


@self_check
def check_rule(rule: Callable[[float, float, float], str]) -> str:
    """Exercise `ex-verdict-rule`: what the rule says of an interval and a threshold."""
    for (low, high, threshold), expected in RULE.items():
        answer = rule(low, high, threshold)
        at_nothing = answer == "supported here" and low == threshold == 0
        require(not at_nothing, f"[{low}, {high}] against {threshold}: a difference of 0 is not excluded")
        middle = answer == "supported here" and expected == "undecided"
        require(
            not middle,
            f"[{low}, {high}] against {threshold}: the middle is above it, but values below are not excluded",
        )
        require(answer == expected, f"[{low}, {high}] against {threshold}: {answer!r}, the rule says {expected!r}")
    return "the rule never looks at the middle of an interval."


@self_check
def check_smallest(smallest: Callable[[float], float]) -> str:
    """Exercise `ex-verdict-power`: the smallest difference that would have been shown with a power of 0.8."""
    for error in (0.01, 0.04):
        difference = float(smallest(error))
        half = abs(difference / error - norm.ppf(0.975)) < 0.05
        require(
            not half,
            f"a true difference of {difference:.3f} would be shown every other time",
        )
        require(
            abs(difference / error - NEEDED) < 0.05,
            f"standard error {error}: {difference:.3f}, not {NEEDED * error:.3f}",
        )
    return f"{NEEDED:.1f} standard errors: half an interval, and room for bad luck."


@self_check
def check_patients(patients: Callable[[int, float, float], float]) -> str:
    """Exercise `ex-verdict-patients`: how many patients would show a difference."""
    for now, shown, wanted in ((40, 0.08, 0.04), (42, 0.09, 0.02), (30, 0.05, 0.05)):
        needed, expected = float(patients(now, shown, wanted)), now * (shown / wanted) ** 2
        linear = abs(needed - now * shown / wanted) < 0.01 and shown != wanted
        require(not linear, f"{needed:.0f}: errors fall with the square root of the number of patients")
        require(abs(needed / expected - 1) < 0.02, f"{needed:.0f}, where it should be about {expected:.0f}")
    return "half the difference takes four times the patients, and no number of seeds replaces them."
