"""Synthetic H&E tissue with a known truth: architecture, cells, stains.

A field is laid out in micrometres (glands, fronds, pools, files of cells, fibres, fat), filled with nuclei, and turned
into two concentration maps, hematoxylin and eosin. Light then obeys Beer-Lambert::

    I = I0 * exp(-(c_hematoxylin * s_hematoxylin + c_eosin * s_eosin))

Base stain vectors: QuPath's defaults for H&E (Bankhead et al. 2017), after Ruifrok and Johnston 2001. Everything else
is invented for teaching: it only resembles tissue, and is no model of any disease.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

BASE_STAINS = np.array([[0.651, 0.701, 0.290], [0.216, 0.801, 0.558]])
# Micrometres per pixel. Between 40x and 400x a real field shrinks tenfold; here fivefold, so that a small picture at
# 400x still holds some nuclei and one at 40x still resolves them.
MICROMETRES = {40: 2.0, 100: 1.1, 200: 0.65, 400: 0.4}
# Shares that carry one stain alone: of the stroma, by design (without any pure pixel no method could find the stains),
# and of all tissue at most.
PURE_STROMA, MOST_PURE = 0.15, 0.18
PURE = 0.05  # a pixel is pure where a stain is less than this share of both


@dataclass(frozen=True)
class Architecture:
    """How a kind of tissue is built; lengths in micrometres.

    Attributes:
        mode: `gland` (wall around a lumen), `nest` (solid), `frond` (wall around a core, lumen outside), `pool` (mucin
            with islands), `file` (cells in rows).
        radius: of a unit.
        spacing: between the centres of units.
        aspect: length over width.
        irregularity: relative amplitude of a unit's outline.
        wall: thickness of the epithelium.
        stromal_cells: nuclei of the stroma per 1000 square micrometres.
        fat: share of the field in fat cells.
    """

    mode: str
    radius: float
    spacing: float
    aspect: float = 1.0
    irregularity: float = 0.05
    wall: float = 14.0
    stromal_cells: float = 1.5
    fat: float = 0.0


BREAST = {
    "A": Architecture("gland", 24, 62, irregularity=0.08, wall=15),
    "F": Architecture("gland", 38, 120, aspect=2.6, irregularity=0.12, wall=14, stromal_cells=2.2),
    "PT": Architecture("frond", 75, 150, aspect=1.6, irregularity=0.14, wall=10, stromal_cells=4.0),
    "TA": Architecture("gland", 21, 46, irregularity=0.04, wall=12, stromal_cells=0.8),
    "DC": Architecture("nest", 36, 84, aspect=1.5, irregularity=0.30, stromal_cells=2.0, fat=0.06),
    "LC": Architecture("file", 5, 30, stromal_cells=1.2, fat=0.06),
    "MC": Architecture("pool", 70, 150, irregularity=0.12, stromal_cells=1.2),
    "PC": Architecture("frond", 30, 84, aspect=3.2, irregularity=0.18, wall=16),
}
NORMAL = Architecture("gland", 20, 95, irregularity=0.05, wall=11, stromal_cells=1.2, fat=0.08)
LUNG = {
    "lung_n": Architecture("gland", 42, 74, irregularity=0.10, wall=6, stromal_cells=0.8),
    "lung_aca": Architecture("gland", 32, 78, aspect=1.4, irregularity=0.24, wall=20, stromal_cells=2.0),
    "lung_scc": Architecture("nest", 46, 100, aspect=1.2, irregularity=0.22, stromal_cells=2.5),
}


@dataclass(frozen=True)
class Appearance:
    """What all slides of a patient have in common.

    Attributes:
        stain_matrix: ``(2, 3)`` unit vectors.
        strength: ``(2,)`` amount of each stain.
        brightness: ``(3,)`` I0, grey levels of glass.
        atypia: 0 (bland) to 1: nuclear size, crowding, variation and chromatin.
        fibre: length of a stroma fibre over its width.
        haze: how unevenly the stroma takes stain.
    """

    stain_matrix: np.ndarray
    strength: np.ndarray
    brightness: np.ndarray
    atypia: float
    fibre: float
    haze: float


def appearance(generator: np.random.Generator, atypia: float) -> Appearance:
    """Draw the appearance of a patient of a given atypia."""
    stains = np.abs(BASE_STAINS + generator.normal(0, 0.07, (2, 3)))
    return Appearance(
        stain_matrix=stains / np.linalg.norm(stains, axis=1, keepdims=True),
        strength=np.exp(generator.normal(0, 0.25, 2)),
        brightness=generator.uniform(232, 248, 3),
        atypia=float(np.clip(atypia, 0, 1)),
        fibre=generator.uniform(3, 8),
        haze=generator.uniform(0.15, 0.45),
    )


def render(concentrations: np.ndarray, stain_matrix: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """Beer-Lambert: concentrations ``(H, W, 2)`` to an image ``(H, W, 3)`` uint8 RGB.

    Args:
        concentrations: hematoxylin and eosin, natural optical density along their vectors, at least 0.
        stain_matrix: ``(2, 3)`` unit vectors.
        brightness: I0, scalar or ``(3,)``, at most 255.
    """
    light = np.asarray(brightness) * np.exp(-(concentrations.astype(np.float64) @ stain_matrix))
    return np.rint(light).astype(np.uint8)


def tissue(
    architecture: Architecture, look: Appearance, scale: float, size: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Lay out one field.

    Args:
        architecture: of the lesion.
        look: of the patient.
        scale: micrometres per pixel.
        size: pixels per side.
        generator: all randomness.

    Returns:
        Concentrations ``(size, size, 2)`` float32 and the diagnostic regions ``(size, size)`` bool.
    """
    field = _Field(size, scale, generator)
    lesion = replace(architecture, irregularity=architecture.irregularity * (0.6 + 0.8 * look.atypia))
    epithelium, lumen, mucin = _layout(lesion, field)
    if architecture.fat:
        fatness = field.noise(120)
        fatty = fatness > np.quantile(fatness, 1 - 1.5 * architecture.fat)
        lumen |= fatty & (_depth(Architecture("nest", 26, 56), field) > 1.5) & ~epithelium
    stroma = ~(epithelium | lumen | mucin)

    eosin = np.where(stroma, _fibres(field, look.fibre), 0).astype(np.float32)
    eosin += epithelium * (0.45 + 0.10 * field.noise(6))
    haze = field.noise(40)
    haze = haze - np.quantile(haze, PURE_STROMA)
    hematoxylin = np.where(stroma & (haze > 0), look.haze * haze + 0.04, 0).astype(np.float32)
    hematoxylin += epithelium * (0.12 + 0.06 * field.noise(15))
    hematoxylin += mucin * (0.10 + 0.05 * field.noise(20))
    eosin += mucin * (0.06 + 0.03 * field.noise(12))

    size_um = 6.0 + 3.0 * look.atypia
    spread = 0.10 + 0.22 * look.atypia
    spacing = 11.5 - 2.0 * look.atypia
    in_files = architecture.mode == "file"
    cells = _rows(architecture, field, size_um) if in_files else _inside(epithelium, spacing, field)
    lesion_map, in_lesion = _nuclei(cells, size_um, spread, 1.25, field, look)
    stromal = _inside(stroma, 1000**0.5 / architecture.stromal_cells**0.5, field)
    stromal_map, _ = _nuclei(stromal, 5.0, 0.15, 2.6, field, look)
    nuclear = np.maximum(lesion_map, stromal_map)
    # Some nuclei hold hardly any eosin: without pure pixels no method could find the hematoxylin vector.
    pure = field.noise(9) > 0.9
    eosin = np.where(nuclear > 0.2, eosin * np.where(pure, 0.05, 0.6), eosin)
    hematoxylin = np.maximum(hematoxylin, nuclear)

    maps = np.stack([hematoxylin * look.strength[0], eosin * look.strength[1]], axis=-1)
    maps = np.maximum(cv2.GaussianBlur(maps, (0, 0), 0.6), 0)  # the lens
    maps = _mixed(maps, field)
    diagnostic = epithelium | (cv2.dilate(in_lesion.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    return maps.astype(np.float32), diagnostic


def _mixed(maps: np.ndarray, field: "_Field") -> np.ndarray:
    """Give pixels with one stain alone some of the other, until no more than `MOST_PURE` of the tissue is pure."""
    total = maps.sum(axis=-1)
    tissue, pure = total > 0.05, maps.min(axis=-1) < PURE * total
    excess = (pure & tissue).sum() - int(MOST_PURE * tissue.sum())
    if excess <= 0:
        return maps
    order = np.where(pure & tissue, field.noise(12), np.inf)
    changed = order <= np.partition(order.ravel(), excess - 1)[excess - 1]
    return np.where(changed[..., None], np.maximum(maps, 1.2 * PURE * total[..., None]), maps)


class _Field:
    """A square field: coordinates in micrometres, and smooth noise."""

    def __init__(self, size: int, scale: float, generator: np.random.Generator):
        self.size, self.scale, self.generator = size, scale, generator
        self.y, self.x = (np.mgrid[:size, :size] * scale).astype(np.float32)
        self.extent = size * scale

    def noise(self, length: float) -> np.ndarray:
        """Noise of about unit variance and `length` micrometres correlation, ``(size, size)`` float32."""
        pixels = max(length / self.scale, 1.0)
        count = int(np.ceil(self.size / pixels)) + 3
        coarse = self.generator.standard_normal((count, count)).astype(np.float32)
        side = int(np.ceil(count * pixels))
        fine = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        start = int(pixels)
        return fine[start : start + self.size, start : start + self.size]

    def centres(self, spacing: float, jitter: float = 0.3) -> np.ndarray:
        """A jittered hexagonal grid over the field and a margin, ``(N, 2)`` micrometres, in random order."""
        margin = 1.5 * spacing
        rows = np.arange(-margin, self.extent + margin, spacing * 0.87)
        columns = np.arange(-margin, self.extent + margin, spacing)
        y, x = np.meshgrid(rows, columns, indexing="ij")
        x = x + spacing / 2 * (np.arange(len(rows)) % 2)[:, None]
        points = np.stack([x.ravel(), y.ravel()], axis=1) + self.generator.uniform(0, spacing, 2)
        points += self.generator.normal(0, jitter * spacing / 2, points.shape)
        return self.generator.permutation(points)

    def aimed_centres(self, unit: Architecture) -> np.ndarray:
        """Centres of units, moved so that the outline of one crosses the middle: fields are aimed at the lesion."""
        points = self.centres(unit.spacing)
        turn, middle = self.generator.uniform(0, 2 * np.pi), self.extent / 2
        nearest = points[np.hypot(*(points - middle).T).argmin()]
        return points + middle - nearest + 0.95 * unit.radius * np.array([np.cos(turn), np.sin(turn)])


def _depth(unit: Architecture, field: _Field) -> np.ndarray:
    """How many micrometres inside the nearest unit each pixel lies; negative outside, ``(size, size)``."""
    depth = np.full((field.size, field.size), -1e3, np.float32)
    draw = field.generator
    for x, y in field.aimed_centres(unit):
        turn, radius = draw.uniform(0, np.pi), unit.radius * np.exp(draw.normal(0, 0.15))
        amplitudes, phases = draw.normal(0, unit.irregularity, 4), draw.uniform(0, 2 * np.pi, 4)
        reach = radius * unit.aspect**0.5 * (1 + np.abs(amplitudes).sum())  # beyond it the unit has no effect
        rows, columns = (_near(centre, reach, field) for centre in (y, x))
        if not (near := depth[rows, columns]).size:
            continue
        dx, dy = field.x[rows, columns] - np.float32(x), field.y[rows, columns] - np.float32(y)
        cosine, sine, stretch = np.array([np.cos(turn), np.sin(turn), unit.aspect**0.5], np.float32)
        along, across = (dx * cosine + dy * sine) / stretch, (dy * cosine - dx * sine) * stretch
        distance, angle = np.hypot(along, across), np.arctan2(across, along)
        waves = zip(range(2, 6), amplitudes.astype(np.float32), phases.astype(np.float32), strict=True)
        outline = sum(amplitude * np.cos(k * angle + phase) for k, amplitude, phase in waves)
        np.maximum(near, np.float32(radius) * (1 + outline) - distance, out=near)
    return depth


def _near(centre: float, reach: float, field: _Field) -> slice:
    """The pixels of one axis within `reach` micrometres of `centre`."""
    first, last = (centre - reach) / field.scale, (centre + reach) / field.scale
    return slice(max(int(first), 0), max(int(last) + 2, 0))


def _layout(unit: Architecture, field: _Field) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epithelium, lumen and mucin as disjoint masks."""
    nothing = np.zeros((field.size, field.size), bool)
    if unit.mode == "file":
        return nothing, nothing, nothing
    depth = _depth(unit, field)
    inside, wall = depth > 0, depth > 0
    wall &= depth < unit.wall
    if unit.mode == "gland":
        return wall, inside & ~wall, nothing
    if unit.mode == "frond":
        return wall, ~inside, nothing
    if unit.mode == "pool":
        islands = _depth(Architecture("nest", 20, 62, irregularity=0.2), field) > 0
        return islands & inside, nothing, inside & ~islands
    return inside, nothing, nothing


def _fibres(field: _Field, stretch: float) -> np.ndarray:
    """Eosin of the stroma: noise drawn out along one direction, gently bent."""
    texture = cv2.resize(field.noise(4), None, fx=stretch, fy=1, interpolation=cv2.INTER_LINEAR)
    turn, bend = field.generator.uniform(0, np.pi), 10 * field.noise(60) + field.size / 2
    along = (field.x * np.cos(turn) + field.y * np.sin(turn)) / field.scale + bend
    across = (field.y * np.cos(turn) - field.x * np.sin(turn)) / field.scale + bend
    places = along.astype(np.float32), across.astype(np.float32)
    mapped = cv2.remap(texture, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.maximum(0.62 + 0.20 * mapped + 0.12 * field.noise(50), 0.08)


def _inside(mask: np.ndarray, spacing: float, field: _Field) -> np.ndarray:
    """Jittered grid points that fall into a mask, ``(N, 2)`` micrometres."""
    points = field.centres(spacing)
    column, row = np.floor(points / field.scale).astype(int).T
    within = (column >= 0) & (column < field.size) & (row >= 0) & (row < field.size)
    return points[within][mask[row[within], column[within]]]


def _rows(unit: Architecture, field: _Field, nucleus: float) -> np.ndarray:
    """Cells in single files along gently waving lines, ``(N, 2)`` micrometres."""
    draw, turn = field.generator, field.generator.uniform(0, np.pi)
    points: list[np.ndarray] = []
    count = int(field.extent / unit.spacing)
    for row in range(-count, count + 1):
        step = np.arange(-field.extent, field.extent, nucleus * 1.35)
        runs = np.cumsum(draw.standard_normal(len(step))) > draw.normal(0, 2)
        kept = step[runs | (np.abs(step) < 12) if row == 0 else runs]  # the middle row crosses the middle of the field
        wave = row * unit.spacing + draw.normal(0, unit.spacing / 6) + 6 * np.sin(kept / 40 + draw.uniform(0, 6))
        x = field.extent / 2 + kept * np.cos(turn) - wave * np.sin(turn)
        y = field.extent / 2 + kept * np.sin(turn) + wave * np.cos(turn)
        points.append(np.stack([x, y], axis=1))
    return np.concatenate(points)


def _nuclei(
    centres: np.ndarray, diameter: float, spread: float, aspect: float, field: _Field, look: Appearance
) -> tuple[np.ndarray, np.ndarray]:
    """Hematoxylin of nuclei at `centres`, and where they are."""
    amount = np.zeros((field.size, field.size), np.float32)
    for axes, turn, dose, (x, y) in _shapes(centres, diameter, spread, aspect, field.generator):
        centre = np.rint(np.array([x, y]) / field.scale * 16).astype(int)
        radii = np.maximum(np.rint(axes / 2 / field.scale * 16), 8).astype(int)
        cv2.ellipse(amount, centre.tolist(), radii.tolist(), turn, 0, 360, dose, -1, cv2.LINE_8, 4)
    chromatin = 1 + (0.06 + 0.28 * look.atypia) * field.noise(1.6)
    return amount * np.clip(chromatin, 0.35, 1.8), amount > 0


def _shapes(
    centres: np.ndarray, diameter: float, spread: float, aspect: float, draw: np.random.Generator
) -> Iterator[tuple]:
    """Axes (micrometres), turn (degrees), hematoxylin and centre of each nucleus."""
    count = len(centres)
    sizes = diameter * np.exp(draw.normal(0, spread, count))
    stretch = aspect * np.exp(np.abs(draw.normal(0, spread, count)))
    axes = np.stack([sizes * stretch**0.5, sizes / stretch**0.5], axis=1)
    return zip(axes, draw.uniform(0, 180, count), 1.25 * np.exp(draw.normal(0, 0.15, count)), centres, strict=True)
