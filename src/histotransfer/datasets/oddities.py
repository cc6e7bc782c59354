"""Pictures that show no stained tissue, made from a seed: photographs, noise, one colour, tissue without its colours.

Whatever says that a picture is odd is measured on them. The photographs are cut from the two that scikit-learn brings
(`sklearn.datasets.load_sample_images`): a temple and a flower.
"""

from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
from sklearn.datasets import load_sample_images

from histotransfer.pictures import resize

NOT_BLANK = 2  # grey levels: standard deviation of the camera's noise in an empty picture


def photographs(count: int, size: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Square cuts of photographs at random places and scales, ``(size, size, 3)`` uint8 RGB each."""
    generator, images = np.random.default_rng([seed, 0]), load_sample_images().images
    for number in range(count):
        image = images[number % len(images)]
        whole = min(image.shape[:2])
        side = int(generator.integers(min(size, whole), whole + 1))
        top, left = (int(generator.integers(0, length - side + 1)) for length in image.shape[:2])
        yield resize(np.ascontiguousarray(image[top : top + side, left : left + side]), size)


def noise(count: int, size: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Coloured noise, from single pixels to blobs of an eighth of the picture; as `photographs`."""
    generator = np.random.default_rng([seed, 1])
    for _ in range(count):
        field, blur = generator.standard_normal((size, size, 3)), float(generator.uniform(-1, size / 8))
        field = np.asarray(cv2.GaussianBlur(field, (0, 0), blur) if blur > 0 else field)
        field = field / field.std()
        colour, strength = generator.uniform(64, 192, 3), generator.uniform(16, 64)
        yield np.clip(colour + strength * field, 0, 255).astype(np.uint8)


def blanks(count: int, size: int, seed: int = 0) -> Iterator[np.ndarray]:
    """One colour with a camera's noise: white glass first, then black, then any colour; as `photographs`."""
    generator = np.random.default_rng([seed, 2])
    for number in range(count):
        colour = (np.full(3, 245.0), np.full(3, 5.0))[number] if number < 2 else generator.uniform(0, 255, 3)
        field = colour + NOT_BLANK * generator.standard_normal((size, size, 3))
        yield np.clip(field, 0, 255).astype(np.uint8)


def greys(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same pictures without their colours."""
    for picture in pictures:
        yield cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


NO_TISSUE: dict[str, Callable[[int, int, int], Iterator[np.ndarray]]] = {
    "photograph": photographs,
    "noise": noise,
    "blank": blanks,
}
"""Kinds that need no picture to begin with: count, size and seed to pictures."""
