"""Where a run's images come from: a folder the user gives, or phantom tissue simulated on the spot."""

from pathlib import Path

from histotransfer.config import ProfileName, cache_dir
from histotransfer.datasets import phantom
from histotransfer.errors import HistotransferError


def resolve_root(profile: ProfileName, data_root: str | Path = "", *, seed: int = 0) -> Path:
    """The folder with the data sets of a run.

    Args:
        profile: with `phantom` and no folder, phantom data are simulated into the cache (once) and used.
        data_root: the user's folder, or empty.
        seed: of the phantom data.

    Raises:
        HistotransferError: no such folder, or none given for real data.
    """
    if data_root:
        root = Path(data_root).resolve()
        if not root.is_dir():
            raise HistotransferError(f"{data_root}: no such folder; give the one that holds the data sets")
        return root
    if profile != "phantom":
        raise HistotransferError(f"profile {profile} needs real images: give their folder with --data (data_root)")
    return phantom.write_phantom(cache_dir() / f"phantom-{phantom.VERSION}-{seed}", seed=seed)
