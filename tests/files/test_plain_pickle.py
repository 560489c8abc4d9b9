"""Pickles are read as data: what data needs, as Python's own reader gives it, and nothing else."""

import collections
import pickle

import pytest

from cait.files import plain_pickle

SHARED = ["shared"]
VALUES = [
    None, True, False, 0, 255, 65535, -1, 1 << 40, -(1 << 62), 1.5, "text", "é\n", b"\x00\xff", [], {}, (), (1,),
    (1, 2), (1, 2, 3), (1, 2, 3, 4), [1, [2, (3, {"a": b"b"})]], {"a": {1: [None]}}, [SHARED, SHARED],
    list(range(3000)), {str(i): i for i in range(3000)},
]  # fmt: skip


def load(data, **options):
    return plain_pickle.load(data, {("collections", "OrderedDict"): dict}, "refused", **options)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_data_is_read_as_python_reads_it(protocol):
    for value in VALUES:
        if protocol < 3 and b"_codecs" in pickle.dumps(value, protocol):  # bytes are a call there
            continue
        found = load(pickle.dumps(value, protocol))
        assert found == value and type(found) is type(value)


def test_an_ordered_dict_is_a_dict_and_its_attributes_are_left_out():
    value = collections.OrderedDict(b=1, a=2)
    value._metadata = {"": {"version": 1}}
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert list(load(pickle.dumps(value, protocol)).items()) == [("b", 1), ("a", 2)]


class Point:
    pass


class Taken:
    """In place of a Point."""

    def set_state(self, state):
        self.state = state


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_object_of_a_class_is_what_the_reader_makes_of_it(protocol):
    value = Point()
    value.x, value.y = 1, [2]
    data = pickle.dumps({"a": value}, protocol)
    found = plain_pickle.load(data, {(__name__, "Point"): Taken}, "refused")["a"]
    assert type(found) is Taken and found.state == {"x": 1, "y": [2]}
    with pytest.raises(pickle.UnpicklingError, match="a call of something that is no function"):
        plain_pickle.load(data, {(__name__, "Point"): None}, "refused")


def test_strings_of_python_2_are_latin_1():
    assert load(b"\x80\x02U\x02\xe9\x00.") == "é\x00"


@pytest.mark.parametrize(
    "data, words",
    [
        (b"cposix\nsystem\n.", "it asks for posix.system, and refused"),
        (b"\x80\x02" + b")" + b"\x85" * 64 + b".", "nested more than 64 deep"),
        (b"\x80\x02]q\x00h\x00a.", "holds itself"),
        (b"\x80\x02]q\x00\x85q\x01h\x00h\x01a.", "no open container"),
        (b"\x80\x02})Ns.", "a key that is neither"),
        (b"\x80\x02N\x86.", "too few values"),
        (b"\x80\x02NQ.", "outside the pickle"),
        (pickle.dumps(1 << 64, 2), "more than 64 bits"),
    ],
)
def test_what_is_no_data_is_refused(data, words):
    with pytest.raises(pickle.UnpicklingError, match=words):
        load(data)


def test_the_number_of_instructions_is_bounded(monkeypatch):
    monkeypatch.setattr(plain_pickle, "MAX_STEPS", 100)
    with pytest.raises(pickle.UnpicklingError, match="more than 100 instructions"):
        load(pickle.dumps(list(range(200)), 2))


def test_a_memo_costs_what_it_holds():
    import tracemalloc

    tracemalloc.start()
    assert load(b"\x80\x02Nr\xff\xff\xff\x03.") is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
