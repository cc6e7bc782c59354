"""A run that is killed with SIGKILL at random moments and started again, as a user would."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SETTINGS = ["size=48", "threads=1", "lc25000_schedule=head:1,block4:1", "breakhis_schedule=head:1,block4:1,block3:1"]
HISTOTRANSFER = str(Path(sys.executable).with_name("histotransfer"))


def start(phantom_root, out, cache, weights):
    cache.mkdir(parents=True, exist_ok=True)
    link = cache / weights.name
    if not link.is_symlink():
        link.symlink_to(weights)
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    command = [HISTOTRANSFER, "ladder", "--data", str(phantom_root), "--out", str(out), *settings]
    environment = {**os.environ, "HISTOTRANSFER_CACHE": str(cache)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "provenance.json"
    }


@pytest.mark.slow
def test_a_ladder_killed_at_random_moments_ends_with_the_same_files(phantom_root, trunk, tmp_path):
    weights = Path(os.environ["HISTOTRANSFER_CACHE"]) / "densenet121-imagenet.safetensors"
    began = time.monotonic()
    whole = start(phantom_root, tmp_path / "whole" / "tiny", tmp_path / "cache", weights)
    said, _ = whole.communicate()
    lasted = time.monotonic() - began
    assert whole.returncode == 0, said
    expected = files(tmp_path / "whole" / "tiny")
    assert "ladder/model.safetensors" in expected

    random = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    kills = []
    for _ in range(3):  # the deaths of one run, each further on
        kills.append(float(random.uniform(0.3, 0.9)) * lasted)
        run = start(phantom_root, tmp_path / "broken" / "tiny", tmp_path / "other cache", weights)
        time.sleep(kills[-1])
        run.send_signal(signal.SIGKILL)
        run.communicate()
    last = start(phantom_root, tmp_path / "broken" / "tiny", tmp_path / "other cache", weights)
    said, _ = last.communicate()
    assert last.returncode == 0, said
    assert files(tmp_path / "broken" / "tiny") == expected, f"killed after {kills} of {lasted:.1f} s"
    assert not list((tmp_path / "broken" / "tiny").glob(".*"))
