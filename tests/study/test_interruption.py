"""A run that is killed with SIGKILL at random moments and started again, as a user would."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

SETTINGS = [
    "size=48", "threads=1", "lc25000_schedule=head:2,block4:2", "breakhis_schedule=head:2,block4:2,block3:4",
]  # fmt: skip


def start(small_network, phantom_root, out, cache):
    """Start a run; it has come as far as its first line."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    command = [sys.executable, str(small_network), "ladder", "--data", str(phantom_root), "--out", str(out), *settings]
    environment = {**os.environ, "HISTOTRANSFER_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
    run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert run.stdout.readline().startswith("ImageNet weights")
    return run


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "provenance.json"
    }


@pytest.mark.slow
def test_a_ladder_killed_at_random_moments_ends_with_the_same_files(small_network, phantom_root, tmp_path):
    whole = start(small_network, phantom_root, tmp_path / "whole" / "tiny", tmp_path / "cache")
    began = time.monotonic()
    said, _ = whole.communicate()
    lasted = time.monotonic() - began
    assert whole.returncode == 0, said
    expected = files(tmp_path / "whole" / "tiny")
    assert "ladder/model.safetensors" in expected

    random = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    kills = []
    for _ in range(3):  # the deaths of one run, each further on
        kills.append(float(random.uniform(0.1, 0.9)) * lasted)
        run = start(small_network, phantom_root, tmp_path / "broken" / "tiny", tmp_path / "other cache")
        time.sleep(kills[-1])
        run.send_signal(signal.SIGKILL)
        run.communicate()
    last = start(small_network, phantom_root, tmp_path / "broken" / "tiny", tmp_path / "other cache")
    said, _ = last.communicate()
    assert last.returncode == 0, said
    assert files(tmp_path / "broken" / "tiny") == expected, f"killed after {kills} of {lasted:.1f} s"
    assert not list((tmp_path / "broken" / "tiny").glob(".*"))
