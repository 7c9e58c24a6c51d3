import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.base import InputError
from everlearn.learners import Labels


def texts(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def test_numbers_get_codes_in_order_of_appearance():
    labels = Labels()
    assert labels.extend(np.array([3.0, 1.0, 3.0, 2.0])) == 3
    assert labels.values == (3.0, 1.0, 2.0)
    assert labels.encode(np.array([1.0, 2.0, 3.0, 7.0, np.nan])).tolist() == [1, 2, 0, -1, -1]
    assert labels.order.tolist() == [1, 2, 0]
    assert labels.decode(np.array([0, -1])).tolist()[0] == 3.0
    assert np.isnan(labels.decode(np.array([-1]))[0])


def test_texts():
    labels = Labels(["late", "early"])
    assert labels.encode(texts("early", "never", "late")).tolist() == [1, -1, 0]
    assert labels.extend(["never"]) == 1
    assert labels.decode(np.array([2, 0, -1])).tolist() == ["never", "late", None]
    assert labels.order.tolist() == [1, 0, 2]


def test_booleans_and_integers_are_numbers():
    assert Labels([True, False]).values == (1.0, 0.0)
    assert Labels([1, 0]).encode(np.array([0.0, 1.0])).tolist() == [1, 0]
    assert Labels([-0.0]).values == (0.0,)


def test_empty():
    assert Labels().encode(np.array([1.0])).tolist() == [-1]
    assert Labels().encode(texts("a")).tolist() == [-1]
    assert len(Labels().decode(np.zeros(0, np.int64))) == 0
    assert Labels().extend([]) == 0


@pytest.mark.parametrize(
    "values", [["a", "a"], [1, 1.0], [np.nan], [np.inf], ["a", 1], [None], ["a", None]]
)
def test_refuses_what_is_no_class(values):
    with pytest.raises(InputError):
        Labels(values)


def test_a_text_is_no_class_among_numbers():
    labels = Labels([1, 2])
    with pytest.raises(InputError, match="'a' is not"):
        labels.extend(texts("a"))
    assert labels.encode(texts("a")).tolist() == [-1]
    assert Labels(["a"]).encode(np.array([1.0])).tolist() == [-1]


def test_refuses_codes_that_were_never_given():
    with pytest.raises(InputError):
        Labels([1, 2]).decode(np.array([2]))


@given(
    st.one_of(
        st.lists(st.floats(allow_nan=False, allow_infinity=False), unique=True, max_size=20),
        st.lists(st.text(), unique=True, max_size=20),
    ),
    st.data(),
)
def test_what_is_encoded_is_decoded(values, data):
    labels = Labels(values)
    again = Labels.load(labels.save())
    assert again.values == labels.values
    if not values:
        return
    chosen = data.draw(st.lists(st.sampled_from(values)))
    array = texts(*chosen) if isinstance(values[0], str) else np.array(chosen, np.float64)
    assert again.decode(again.encode(array)).tolist() == array.tolist()
    assert [values[code] for code in labels.order] == sorted(values)
