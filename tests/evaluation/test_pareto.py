import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from histotransfer.evaluation.pareto import pareto_front


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(points):
    """Definition by loops; and every point left out is beaten by one of the front."""
    cost, value = (np.array(column, dtype=float) for column in zip(*points, strict=True))

    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    expected = [not any(beats(other, point) for other in points) for point in points]
    assert pareto_front(cost, value).tolist() == expected
    front = [point for point, kept in zip(points, expected, strict=True) if kept]
    assert all(kept or any(beats(best, point) for best in front) for point, kept in zip(points, expected, strict=True))
