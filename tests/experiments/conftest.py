from functools import partial

import pytest

from histotransfer.experiments import probe


@pytest.fixture(scope="module")
def quick_probe():
    """The frozen probe has nothing to choose between for the rest of the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "frozen_probe", partial(probe.frozen_probe, offered=(1e-3,)))
        yield
