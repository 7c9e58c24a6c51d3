from hypothesis import given
from hypothesis import strategies as st

from everlearn.rollout.assignment import is_candidates, place_of


@given(st.text(max_size=20), st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_nobody_goes_back_while_the_share_grows(salt, key, one, other):
    small, large = sorted((one, other))
    assert not (is_candidates(salt, key, small) and not is_candidates(salt, key, large))
    assert not is_candidates(salt, key, 0.0)
    assert is_candidates(salt, key, 1.0)


def test_shares_are_kept_and_rollouts_draw_anew():
    keys = [f"user {n}" for n in range(20_000)]
    first = [is_candidates("a", key, 0.2) for key in keys]
    second = [is_candidates("b", key, 0.2) for key in keys]
    assert abs(sum(first) / 20_000 - 0.2) < 0.01
    both = sum(one and other for one, other in zip(first, second, strict=True))
    assert abs(both / 20_000 - 0.04) < 0.006
    assert place_of("a", "b") != place_of("a\0b", "")
