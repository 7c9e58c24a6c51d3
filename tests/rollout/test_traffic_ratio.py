import numpy as np

from everlearn.rollout.traffic_ratio import TrafficRatio


def rejects(shares, truth, generator, alpha=0.01, looks=400, each=25):
    """Whether a test that is looked at again and again ever rejects."""
    test = TrafficRatio(shares[0])
    for number in range(looks):
        planned = shares[number * len(shares) // looks]
        if planned != test.share:
            test = test.with_share(planned)
        came = int(generator.binomial(each, truth(planned)))
        test = test.seen(came, each - came)
        if test.differs(alpha):
            return True
    return False


def test_it_hardly_ever_rejects_what_is_as_it_should():
    generator = np.random.default_rng(0)
    for shares in ([0.5], [0.01, 0.05, 0.25, 0.5]):
        wrong = sum(rejects(shares, lambda share: share, generator) for _ in range(500))
        assert wrong <= 0.02 * 500  # at most 0.01; by chance a little more


def test_it_finds_what_is_not():
    generator = np.random.default_rng(0)
    found = sum(rejects([0.5], lambda share: share + 0.05, generator) for _ in range(50))
    assert found >= 48
    found = sum(rejects([0.05, 0.25, 0.5], lambda share: 0.8 * share, generator) for _ in range(50))
    assert found >= 48


def test_without_a_share_there_is_nothing_to_test():
    for share in (0.0, 1.0):
        assert not TrafficRatio(share).seen(100, 5).differs(0.05)
