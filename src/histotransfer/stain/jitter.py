"""Stain jitter: augmentation in stain space, the alternative to normalisation."""

import hashlib

import numpy as np

from histotransfer.errors import HistotransferError
from histotransfer.stain.density import NotNormalisable, fit_stains, sample_density
from histotransfer.stain.maps import keep_glass, map_density
from histotransfer.stain.normalisers import VERSION, NoNormalisation, checked


class StainJitter:
    """Random strength of each stain: `c -> alpha * c + beta`, alpha in `1 +- sigma_alpha`, beta in `+- sigma_beta`.

    A draw is a pure function of seed, image content and draw number; no order of calls or workers changes it.
    The stain vectors are the tile's own (Macenko), or the published ones where a guard fails; glass stays glass.

    Raises:
        HistotransferError: a strength that is negative, or `sigma_alpha` of 1 and more.

    Source: Tellez 2018, equation 2. Deviations: vectors of the tile, not of Ruifrok and Johnston; two stains, the part
    of the density outside their plane is kept; no shift on glass.
    """

    def __init__(self, sigma_alpha: float = 0.2, sigma_beta: float = 0.05, seed: int = 0):
        if not (0 <= sigma_alpha < 1 and sigma_beta >= 0):
            raise HistotransferError("stain jitter: sigma_alpha must lie in [0, 1), sigma_beta must not be negative")
        self.sigma_alpha, self.sigma_beta, self.seed = float(sigma_alpha), float(sigma_beta), int(seed)

    def __call__(self, image: np.ndarray, draw: int = 0) -> np.ndarray:
        """Draw number `draw` of an image: uint8 RGB `(H, W, 3)` in and out.

        Raises:
            HistotransferError: not a uint8 RGB array.
        """
        image = checked(image)
        content = hashlib.sha256(f"{self.seed} {draw} {image.shape}".encode() + image.tobytes()).digest()
        random = np.random.default_rng(int.from_bytes(content[:16], "little"))
        alpha = random.uniform(1 - self.sigma_alpha, 1 + self.sigma_alpha, 2)
        beta = random.uniform(-self.sigma_beta, self.sigma_beta, 2)
        try:
            stains = fit_stains(sample_density(image)).stain_matrix
        except NotNormalisable:
            stains = NoNormalisation().stain_matrix(image)
        matrix = np.eye(3) + stains.T @ np.diag(alpha - 1) @ np.linalg.pinv(stains.T)
        return keep_glass(image, map_density(image, matrix, stains.T @ beta))

    def fingerprint(self) -> str:
        """A short key of the strengths and the seed; with the draw number it names a cached view."""
        return f"jitter-v{VERSION}-{self.sigma_alpha:g}-{self.sigma_beta:g}-{self.seed}"
