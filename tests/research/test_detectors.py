from research.detectors import FALSE_ALARMS, GRIDS, design


def test_the_design_takes_the_smallest_threshold_with_few_false_alarms():
    sweep = design(30)
    assert {name: tuple(own["threshold"]) for name, own in sweep.groupby("signature")} == GRIDS
    for _, own in sweep.groupby("signature"):
        allowed = own[own["false alarms"] <= FALSE_ALARMS]
        assert own.loc[own["chosen"], "threshold"].tolist() == [allowed["threshold"].min()]
        assert (own["hits"].diff().dropna() <= 0).all() and (own["false alarms"].diff().dropna() <= 0).all()
