from histotransfer import figures


def test_sides_are_bars_of_their_seconds_and_peers_are_grey():
    figure = figures.race("a race", {"ours": 1.5, "plain script": 6.0}, lambda side: side.startswith("plain"))
    (axis,) = figure.axes
    assert [bar.get_width() for bar in axis.patches] == [1.5, 6.0]
    ours, peer = (bar.get_facecolor()[:3] for bar in axis.patches)
    assert ours != peer and len(set(peer)) == 1
    assert [text.get_text() for text in axis.texts] == ["ours", " 1.5 s", "plain script", " 6 s"]
    assert "ours 1.5 s, plain script 6 s" in figure.alt


def test_growth_has_a_line_per_step_in_time_and_in_memory():
    rows = [{"images": n, "seconds": 0.1 * n, "peak_megabytes": 300 + n} for n in (10, 100)]
    figure = figures.growth({"verify": rows, "predict": rows})
    time, memory = figure.axes
    assert [list(line.get_ydata()) for line in time.lines] == [[1, 10]] * 2
    assert list(memory.lines[0].get_ydata()) == [310, 400]
    assert time.get_xscale() == time.get_yscale() == "log"
    assert "verify: 10 images 1 s, 310 MB" in figure.alt
    assert time.lines[0].get_color() != time.lines[1].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["verify", "predict"]
