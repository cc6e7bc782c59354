"""Chapter 12: a rule, what a design could have shown, and how many patients a verdict needs."""

from collections.abc import Callable

from scipy.stats import norm

from histotransfer.book.exercises import require, self_check

RULE = {  # low, high and margin
    (0.01, 0.09, 0.02): "supported here",
    (-0.02, 0.08, 0.02): "undecided",
    (-0.09, -0.01, 0.02): "contradicted here",
    (0.0, 0.08, 0.02): "undecided",  # no difference at all is not excluded
    (-0.03, 0.01, 0.02): "no effect worth having",
    (-0.03, 0.01, 0.005): "undecided",
    (-0.08, 0.0, 0.02): "no effect worth having",  # a value of 0 is not excluded, so the claim is not contradicted
    (-0.03, 0.02, 0.02): "undecided",  # nor is a gain of the margin
    (0.001, 0.01, 0.02): "supported here",  # what is claimed is a difference, however small
}
NEEDED = norm.ppf(0.975) + norm.ppf(0.8)  # standard errors that a power of 0.8 at 95 % asks for


@self_check
def check_rule(rule: Callable[[float, float, float], str]) -> str:
    """Exercise `ex-verdict-rule`: what the rule says of an interval of a difference."""
    for (low, high, margin), expected in RULE.items():
        answer, shown = rule(low, high, margin), f"[{low}, {high}] and a margin of {margin}"
        require(answer != "supported here" or low != 0, f"{shown}: a difference of 0 is not excluded")
        middle = answer == "supported here" and expected == "undecided"
        require(not middle, f"{shown}: the middle is above 0, but values below are not excluded")
        small = answer == "undecided" and expected == "no effect worth having"
        require(not small, f"{shown}: the rule asks only whether a *gain* of the margin is excluded, and it is")
        require(answer == expected, f"{shown}: {answer!r}, the rule says {expected!r}")
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
