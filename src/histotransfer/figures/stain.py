"""Optical densities, and Macenko's method in pictures."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D

from histotransfer.figures.style import PALETTE, SMALL, WIDTH, described, legend_above, stacked
from histotransfer.stain import Macenko, optical_density, tissue_mask
from histotransfer.stain.density import LIGHT

STAIN_COLOURS = {"haematoxylin": PALETTE["blue"], "eosin": PALETTE["red"]}


def stain_plane(density: np.ndarray, stains: np.ndarray, shown: int = 4000) -> Figure:
    """Optical densities of tissue in the plane of their two largest axes with the stain vectors, and edge on.

    Args:
        density: ``(3, N)`` of pixels that hold stain.
        stains: ``(2, 3)`` unit vectors, haematoxylin and eosin.
        shown: at most this many pixels, evenly spread.
    """
    density = _spread(density, shown)
    axes, share = _principal_axes(density)
    places, arrows = axes @ density, stains @ axes.T
    arrows *= 0.8 * places[0].max() / np.abs(arrows[:, :1])
    figure, panels = stacked(2, 2.6, sharex=True, sharey=True)
    for panel, row in zip(panels, (1, 2), strict=True):
        panel.scatter(places[0], places[row], c=np.exp(-density.T), s=4, lw=0, rasterized=True)
        for arrow, (name, colour) in zip(arrows, STAIN_COLOURS.items(), strict=True):
            panel.plot([0, arrow[0]], [0, arrow[row]], color=colour, lw=2, label=name)
        panel.set(aspect="equal")
    panels[0].set(title="face on", ylabel="second axis")
    panels[1].set(title=f"edge on ({share:.1%} of the spread)", ylabel="third axis")
    panels[1].set_xlabel("first axis (optical density)")
    legend_above(figure)
    return described(
        figure,
        "Optical densities of tissue pixels: face on they fan out between the two stain vectors, edge on they are flat;"
        f" {share:.1%} of their spread lies in the plane.",
    )


def macenko_steps(image: np.ndarray, method: Macenko) -> Figure:
    """Macenko's method in five steps: picture, densities with their plane, extreme angles, both stains, re-stained.

    Args:
        image: ``(H, W, 3)`` uint8 with tissue.
        method: its reference stains the last picture.

    Raises:
        HistotransferError: the image fails a guard.
    """
    stains, amounts = method.stain_matrix(image), method.concentrations(image)
    density = optical_density(image).reshape(-1, 3).T
    tissue = _spread(density[:, tissue_mask(density)], 4000)
    axes, share = _principal_axes(tissue)
    figure = plt.figure(figsize=(WIDTH, 5.9), layout="constrained")
    picture, cloud, angles, *alone, restained = (
        figure.add_subplot(3, 2, place, projection="3d" if place == 2 else None) for place in range(1, 7)
    )
    _picture(picture, image, "1 the picture")
    cloud.set_title("2 densities in a plane", fontsize=SMALL)
    _plane(cloud, tissue, axes)
    ends = _extreme_angles(angles, tissue, axes)
    angles.set_title("3 extreme angles", fontsize=SMALL, pad=14)
    for axis, (name, colour), stain, amount in zip(
        alone, STAIN_COLOURS.items(), stains, np.moveaxis(amounts, -1, 0), strict=True
    ):
        _picture(axis, LIGHT * np.exp(-np.maximum(amount, 0)[..., None] * stain), f"4 {name} alone")
        axis.spines[:].set(visible=True, color=colour, lw=2)  # that of the line at its angle
    _picture(restained, method.normalise(image)[0], "5 re-stained")
    return described(
        figure,
        "Macenko's method in five steps: a picture; its optical densities, of whose spread"
        f" {share:.1%} lies in a plane; their angles in it, with {ends[0]:.0f}° and {ends[1]:.0f}° as the 1st and 99th"
        " percentile, which are the two stains; haematoxylin alone and eosin alone; the picture in the reference's"
        " stains.",
    )


def _picture(axis: Axes, image: np.ndarray, title: str) -> None:
    axis.imshow(np.clip(image, 0, 255).astype(np.uint8), interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.set_title(title, fontsize=SMALL)


def _plane(axis: Axes3D, density: np.ndarray, axes: np.ndarray) -> None:
    """Densities ``(3, N)`` in red, green and blue, with the plane through the origin that they lie near."""
    axis.scatter(*density, c=np.exp(-density.T), s=2, lw=0)
    along, across = axes[:2] @ density
    u, v = np.meshgrid([0, along.max()], [across.min(), across.max()])
    axis.plot_surface(*np.einsum("ik,iab->kab", axes[:2], np.stack([u, v])), color="0.5", alpha=0.25)
    axis.set(xticks=[], yticks=[], zticks=[])
    for set_label, name in zip((axis.set_xlabel, axis.set_ylabel, axis.set_zlabel), ("R", "G", "B"), strict=True):
        set_label(name, fontsize=SMALL, labelpad=-14)
    axis.view_init(elev=24, azim=-70)


def _extreme_angles(axis: Axes, density: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """A histogram of the angles of densities in their plane with the two percentiles; returns these, in degrees."""
    along, across = axes[:2] @ density
    angles = np.degrees(np.arctan2(across, along))
    ends = np.percentile(angles, [1, 99])
    axis.hist(angles, bins=40, color="0.75")
    # The stain that absorbs more red is haematoxylin.
    red = [np.cos(end) * axes[0, 0] + np.sin(end) * axes[1, 0] for end in np.radians(ends)]
    names = list(STAIN_COLOURS) if red[0] > red[1] else list(STAIN_COLOURS)[::-1]
    for end, name, percentile in zip(ends, names, ("1 %", "99 %"), strict=True):
        axis.axvline(end, color=STAIN_COLOURS[name], lw=2, label=name)
        axis.text(end, 1, percentile, transform=axis.get_xaxis_transform(), fontsize=SMALL, ha="center", va="bottom")
    axis.set(yticks=[], ylabel="pixels")
    axis.set_xlabel("angle (degrees)", fontsize=SMALL)
    axis.tick_params(labelsize=SMALL)
    return ends


def _spread(density: np.ndarray, shown: int) -> np.ndarray:
    """At most about `shown` of the densities ``(3, N)``, evenly spread, in double precision."""
    return density[:, :: max(1, density.shape[1] // shown)].astype(float)


def _principal_axes(density: np.ndarray) -> tuple[np.ndarray, float]:
    """Principal axes of densities ``(3, N)``, one per row, largest first; and the share of variance in their plane."""
    spread, axes = np.linalg.eigh(np.cov(density))
    axes = axes[:, ::-1] * np.where(axes[:, ::-1].sum(axis=0) > 0, 1, -1)
    return axes.T, float(1 - spread[0] / spread.sum())
