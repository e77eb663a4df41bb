import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from semisup.report.failures import spread


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(4, 20))
def test_every_kind_is_shown_however_rare(codes: list[int], limit: int) -> None:
    places = spread(np.array(codes, np.int64), limit)
    assert places == sorted(set(places))
    assert len(places) == min(len(codes), limit)
    assert {codes[place] for place in places} == set(codes)
