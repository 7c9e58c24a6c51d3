from hypothesis import given
from hypothesis import strategies as st

from everlearn.rollout.assignment import digest_of, is_candidates


@given(st.text(max_size=20), st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_nobody_goes_back_while_the_share_grows(salt, key, one, other):
    small, large = sorted((one, other))
    assert not (
        is_candidates(digest_of(salt, key), small)
        and not is_candidates(digest_of(salt, key), large)
    )
    assert not is_candidates(digest_of(salt, key), 0.0)
    assert is_candidates(digest_of(salt, key), 1.0)


def test_shares_are_kept_and_rollouts_draw_anew():
    keys = [f"user {n}" for n in range(20_000)]
    first = [is_candidates(digest_of("a", key), 0.2) for key in keys]
    second = [is_candidates(digest_of("b", key), 0.2) for key in keys]
    assert abs(sum(first) / 20_000 - 0.2) < 0.01
    both = sum(one and other for one, other in zip(first, second, strict=True))
    assert abs(both / 20_000 - 0.04) < 0.006
    assert digest_of("a", "b") != digest_of("a\0b", "")
