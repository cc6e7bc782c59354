import json

import pytest

from histotransfer.report.costs import waits, write_costs

PLAIN = {"plain, 112 pixels, batch 8": 3.0, "plain, 224 pixels, batch 32": 8.0, "plain, 224 pixels, batch 8": 9.0}
SIDES = {"int8": 1.0, "openvino": 2.0, **PLAIN, "torch": 4.0}  # sorted, as records are
RECORDS = {
    "predict": {
        "pictures": {"images": 128, "median_seconds": SIDES, "ratios": {"torch": 2.0, "openvino": 4.0}},
        "checks": {"share": {"waited": 0.02}},
        "first_row": {"median_seconds": {"plain, 224 pixels, batch 8": 2.5, "torch": 2.0}},
        "fields": {"images": 7909, "share": {"torch": 0.8}},
    },
    "stain": {
        "timings": {
            f"{name}_2thread": {"median_seconds": {"ours": 0.002, "torchstain torch": 0.024}}
            for name in ("macenko", "reinhard", "vahadane")
        }
    },
    "intervals": {
        "seconds": {"ours": 1.0, "scipy": 4.0},
        "draws": {"ours": 10_000, "scipy": 200},
        "metrics": ["auroc"],
        "largest_difference": 1e-15,
    },
    "duplicates": {
        "made": {
            "images": 25_000, "originals": 1250, "seconds": 150.0, "peak_memory_mb": 900, "precision": 1.0,
            "recall": 0.99,
        }
    },
    "unfreezing": {
        "seconds": {
            "ours": {"single_run": 20.0, "single_run_with_block3": 40.0, "full_epoch": 10.0},
            "stock": {"single_run": 100.0, "single_run_with_block3": 90.0, "full_epoch": 15.0},
        },
        "operations": {"ours": {"convolutions": 8.0, "ReLU": 2.0}, "stock": {"convolutions": 9.0, "ReLU": 9.0}},
        "images": 160,
        "train_images_of_fold_0": 100,
        "size": 224,
    },
    "book": {
        "builds": {
            "cold": {"seconds": 170.0, "chapters": 13},
            "a page": {"seconds": 25.0, "chapters": 0},
        }
    },
    "cluster": {
        "measured": {
            "runs": 8,
            "efficiency": 0.93,
            "median_seconds": {"one worker": 100.0, "two workers": 54.0, "two commands": 52.0},
        },
        "simulated": [{"workers": 8, "hours": 1.2, "efficiency": 0.9}],
        "recorded_runs": 400,
        "longest_minutes": 16.6,
    },
    "growth": {
        "steps": {"verify": [{"images": 10, "seconds": 1, "peak_megabytes": 300}]},
        "exponents": {"verify": 0.98},
    },
}  # fmt: skip


@pytest.fixture
def bench(tmp_path):
    for name, record in RECORDS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    return tmp_path


def test_a_wait_has_the_fastest_peer_beside_our_first_side(bench):
    found = {wait.name: wait for wait in waits(bench)[0]}
    predict = found["`predict`, 128 pictures"]
    assert (predict.ours, predict.peer) == (4.0, 8.0)
    assert predict.row() == "| `predict`, 128 pictures | 4 s | 8 s | 2.0 | 1 times |"
    assert found["`data groups`"].row() == "| `data groups` | 150 s | – | – | under 180 s |"
    assert found["head and block 4, one fold"].row().endswith("| 5.0 | 5 times |")
    assert found["intervals of all metrics"].peer == pytest.approx(200)  # 4 s of 200 draws, for 10,000
    assert found["`make book`, pages alone"].ours == 25
    assert found["a study on two workers"].ours == 54


def test_the_page_has_a_line_and_a_picture_per_wait_and_names_each(bench, tmp_path):
    target = tmp_path / "_generated"
    write_costs(bench, target)
    text = (target / "costs.md").read_text()
    count = len(waits(bench)[0]) + 1  # growth
    assert len(list(target.glob("costs-*.svg"))) == count
    for number in range(count):
        assert f":name: fig-costs-{number}\n" in text and f"{{numref}}`fig-costs-{number}`" in text
    assert text.count("\n| ") == len(waits(bench)[0]) + 1


def test_only_what_was_raced_is_on_the_page_and_what_was_not_is_named(bench, tmp_path):
    (bench / "predict.json").unlink()
    (bench / "duplicates.json").write_text(json.dumps({"seconds": 3}))  # of another time
    found, missing = waits(bench)
    assert not any("predict" in wait.name or "data groups" in wait.name for wait in found)
    assert missing == ["predict", "duplicates"]
    write_costs(bench, tmp_path / "_generated")
    said = "(chapters may show an older race): `benchmarks/predict.py`, `benchmarks/duplicates.py`.\n"
    assert said in (tmp_path / "_generated/costs.md").read_text()
