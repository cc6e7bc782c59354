"""Chapter 06: which pipelines leak, how well patients are remembered, which files are copies."""

from collections.abc import Callable, Iterable

import numpy as np

from histotransfer.book.exercises import letters, require, self_check

LEAKING = {
    "b": "means and spreads over all images know the test images",
    "d": "the best of many epochs by test accuracy is chosen on the test part",
    "e": "a picture and its turned copy can come to stand on both sides",
}


@self_check
def check_pipelines(pipelines: Iterable[str]) -> str:
    """Exercise `ex-leakage-pipelines`: which of five pipelines leak."""
    chosen = letters(pipelines)
    accused = sorted(chosen - set(LEAKING))
    require(not accused, f"({', '.join(accused)}) does not leak: what does it take from test patients?")
    missed = sorted(set(LEAKING) - chosen)
    require(
        not missed, f"{len(missed)} more: ask of each step whether it could have been done before the test part existed"
    )
    return "; ".join(LEAKING.values()) + "."


@self_check
def check_remembered(remembered: Callable[[np.ndarray, np.ndarray], float]) -> str:
    """Exercise `ex-leakage-memory`: how often an image's nearest other image is of the same patient."""
    generator = np.random.default_rng(0)
    patients = np.repeat([f"14-{i}" for i in range(6)], 5)
    for spread, name in ((0.0, "patients alike"), (1.5, "patients apart")):
        centres = np.repeat(generator.normal(size=(6, 4)), 5, axis=0) * spread
        features = centres + generator.normal(size=centres.shape)
        distances = np.linalg.norm(features[:, None] - features[None], axis=2)
        np.fill_diagonal(distances, np.inf)
        expected = float((patients[distances.argmin(axis=1)] == patients).mean())
        share = float(remembered(features, patients))
        require(share != 1.0 or expected == 1.0, "1 for any features: every image is nearest to itself; leave it out")
        require(abs(share - expected) < 1e-9, f"{name}: {share:.2f}, where it should be {expected:.2f}")
    return "where this share is high, a split by image tests who is known, not what is seen."


@self_check
def check_copies(copies: Callable[[list[np.ndarray]], set[tuple[int, int]]]) -> str:
    """Exercise `ex-leakage-copies`: pairs of pictures that are turned or mirrored copies."""
    generator = np.random.default_rng(0)
    a, b, c = generator.integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    channels = a[..., ::-1]  # the same pixels in other colours: no copy
    mixed = generator.permutation(a.reshape(-1, 3)).reshape(a.shape)  # the same colours in other places: none either
    images = [a, b, np.rot90(a), c, np.rot90(b, 3)[:, ::-1], channels, c.copy(), mixed]
    pairs = {(min(pair), max(pair)) for pair in copies(images)}
    require((3, 6) in pairs, "it misses an exact copy")
    require((0, 2) in pairs, "it misses a turned copy")
    require((1, 4) in pairs, "it misses a copy that was turned and mirrored")
    require(not any(7 in pair for pair in pairs), "the same pixels in other places are no copy")
    require(pairs == {(0, 2), (1, 4), (3, 6)}, "it accuses pictures that are no copies, or pairs one with itself")
    return (
        "exact copies can be found like this; LC25000's were turned by up to 25 degrees, cropped and enlarged, which is"
        " why chapter 06 aligns them."
    )
