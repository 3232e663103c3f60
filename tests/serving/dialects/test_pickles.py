"""The pickles of trainers' clients: read as Python reads them, and nothing in them is ever run."""

import collections
import functools
import io
import os
import pickle
import pickletools
import struct
import subprocess

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from descore.serving.dialects import pickles
from descore.serving.dialects.pickles import read_pickle
from descore.serving.problems import ServiceError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.slow
@given(value=PLAIN, protocol=st.sampled_from([3, 4, 5]))
def test_plain_values_are_read_as_python_reads_them(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["uint8", "float16", "float32", ">f4", "bool", "<U7"])
def test_arrays_of_all_orders_are_read(kind, protocol):
    if protocol == 2 and kind != "<U7":
        pytest.skip("protocol 2 writes bytes by calling a function")
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    for given_array in (array, np.asfortranarray(array), array[:, ::2], array[:0], array.transpose(2, 0, 1)):
        try:
            read = read_pickle(pickle.dumps({"images": given_array}, protocol))["images"]
        except ServiceError:
            assert protocol == 2  # a text of its own byte order is written as the others
            continue
        assert np.asarray(read).tolist() == given_array.tolist()
        if kind != "<U7":
            assert (read.dtype, read.shape) == (given_array.dtype, given_array.shape)


def test_what_the_clients_send_is_read():
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8)).save(jpeg, "JPEG")
    prompts = np.array_split(np.array(["a red ball", "a dog"]), 1)[0]
    flow_grpo = {"images": [jpeg.getvalue()] * 2, "prompts": prompts}
    verl_omni = {"images": [jpeg.getvalue()], "prompts": ["a dog"], "metadata": {}}
    geneval = {
        "images": [jpeg.getvalue()],
        "meta_datas": list(np.array_split([{"tag": "x"}], 1)[0]),
        "only_strict": True,
    }
    assert read_pickle(pickle.dumps(flow_grpo)) == {"images": [jpeg.getvalue()] * 2, "prompts": ["a red ball", "a dog"]}
    assert read_pickle(pickle.dumps(verl_omni)) == verl_omni
    assert read_pickle(pickle.dumps(geneval)) == geneval
    assert read_pickle(pickle.dumps({"prompts": list(prompts), "weight": np.float32(0.5)})) == {
        "prompts": ["a red ball", "a dog"],
        "weight": 0.5,
    }


class Runs:
    """Runs a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Built:
    """Is built with a state."""


def nested(value, depth):
    for _ in range(depth):
        value = [value]
    return value


def object_array(value):
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


@pytest.fixture
def trap(tmp_path):
    """A file that is written if a pickle is run."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists()


def harmful(path):
    """What would write the file if it were run, and other things that no client sends."""
    touch = f"touch {path}"
    return {
        "system": Runs(os.system, touch),
        "in an image": {"images": [Runs(os.system, touch)]},
        "nested": {"images": [b"x"], "prompts": nested(Runs(os.system, touch), 10)},
        "in an array of objects": object_array(Runs(os.system, touch)),
        "eval": Runs(eval, f"open({str(path)!r}, 'w')"),
        "exec": Runs(exec, f"open({str(path)!r}, 'w')"),
        "subprocess": Runs(subprocess.check_output, ["touch", str(path)]),
        "getattr": Runs(getattr, "text", "upper"),
        "a pickle in a pickle": Runs(pickle.loads, pickle.dumps(Runs(os.system, touch))),
        "memmap": Runs(np.memmap, str(path), "uint8", "w+", 0, (4,)),
        "partial": functools.partial(os.system, touch),
        "an object": Built(),
        "an ordered dict": collections.OrderedDict(a=1),
        "a set": {1, 2},
        "a key that is a tuple": {(1, 2): 3},
        "a complex number": 3 + 4j,
        "complex numbers": np.array([1 + 2j]),
        "a structured array": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
        "dates": np.array(["2026-01-01"], dtype="datetime64[D]"),
        "a tensor": torch.zeros(2),
        "an image": Image.new("RGB", (2, 2)),
    }


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", harmful("x"))
def test_nothing_else_is_read_or_run(trap, name, protocol):
    content = pickle.dumps(harmful(trap)[name], protocol)
    with pytest.raises(ServiceError, match=r"the pickle has|no whole pickle") as caught:
        read_pickle(content)
    assert caught.value.status == 400
    assert "\n" not in str(caught.value)


def raw(*instructions):
    """A pickle of protocol 4 that is written by hand."""
    return b"\x80\x04" + b"".join(instructions) + b"."


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".",
        b"not a pickle",
        b"\x80\x05",
        pickle.dumps([1, 2, 3])[:-2],
        raw(b"0"),  # POP of an empty stack
        raw(b"t"),  # a tuple without a mark
        raw(b"(", b"(", b"t", b"t", b"a"),
        raw(b"]", b"s"),
        raw(b"}", text("a"), b"s"),
        raw(b"]", text("a"), b"R"),
        raw(b"h\x07"),  # what was never memorized
        raw(b"]", b"]"),  # two values
        raw(b"(", b"]"),  # a mark that is left
        raw(text("os"), text("system"), b"\x93", text("true"), b"\x85", b"R"),
        raw(text("numpy"), text("ndarray"), b"\x93"),  # a bare name
        raw(text("numpy"), text("ndarray"), b"\x93", b")", b"R"),
        raw(text("numpy"), text("dtype"), b"\x93", text("O8"), b"\x85", b"R"),
        raw(text("numpy"), text("dtype"), b"\x93", b")", b"R"),
        raw(b"cnumpy\nsave\n"),
        raw(b"cos\nsystem\n"),
        raw(b"ios\nsystem\n"),
        raw(b"\x82\x01"),  # an extension code
        raw(b"Pid\n"),  # a persistent id
        raw(b"\x97"),  # a buffer out of band
        raw(text("numpy._core.numeric"), text("_frombuffer"), b"\x93", b"N", b"\x85", b"R"),
    ],
)
def test_broken_pickles_are_refused(content):
    with pytest.raises(ServiceError) as caught:
        read_pickle(content)
    assert caught.value.kind == "request"


def patched(array, old, new):
    """The pickle of an array, with other bytes in it."""
    content = pickle.dumps(array)
    assert content.count(old) == 1
    return content.replace(old, new)


def test_an_array_never_reads_or_takes_more_than_its_bytes():
    array = np.arange(6, dtype="<u2").reshape(2, 3).T[:, :1].copy(order="F")[::2]
    state = pickle.dumps(array, 3)
    assert np.array_equal(read_pickle(state), array)
    many = np.zeros(7, dtype="u1")
    for shape in (
        b"K\x08\x85",
        b"J\xff\xff\xff\x7f\x85",
        b"J\xff\xff\xff\xff\x85",
        b"\x8a\x09" + b"\xff" * 8 + b"\x00\x85",
    ):
        with pytest.raises(ServiceError, match=r"of shape|whose shape"):
            read_pickle(patched(many, b"K\x07\x85", shape))
    with pytest.raises(ServiceError, match="type 'O1'"):
        read_pickle(patched(many, text("u1"), text("O1")))
    for kind in ("U0", "U9999999", "V1", "u16", "M8"):
        with pytest.raises(ServiceError):
            read_pickle(patched(many, text("u1"), text(kind)))


def test_a_damaged_text_array_is_refused():
    content = pickle.dumps(np.array(["ab"])).replace("a".encode("utf-32-le"), struct.pack("<I", 0x7FFFFFFF))
    for broken in (content, pickle.dumps({"prompts": ["\ud800"]})):
        with pytest.raises(ServiceError, match="a text that is none"):
            read_pickle(broken)


def test_pickles_that_grow_are_bounded(monkeypatch):
    bomb = []
    for _ in range(40):
        bomb = [bomb, bomb, bomb]
    with pytest.raises(ServiceError, match=r"over 200,000 values|deep"):
        read_pickle(pickle.dumps(bomb))
    wide = [[[[1] * 30] * 30] * 30] * 30
    with pytest.raises(ServiceError, match="over 200,000 values"):
        read_pickle(pickle.dumps(wide))
    itself = []
    itself.append(itself)
    with pytest.raises(ServiceError, match="deep"):
        read_pickle(pickle.dumps(itself))
    with pytest.raises(ServiceError, match="instructions"):
        read_pickle(pickle.dumps([1.5] * 300_000))
    key = raw(b"}", b")" + b"2\x86" * 60, b"N", b"s")  # a tuple that would be hashed 2 ** 60 times
    with pytest.raises(ServiceError):
        read_pickle(key)
    far = raw(b"N", b"r\xff\xff\xff\x7f")  # memorized at a place for which Python's unpickler takes gigabytes
    assert read_pickle(far) is None
    with pytest.raises(ServiceError, match="no whole pickle"):
        read_pickle(raw(b"\x8e" + struct.pack("<Q", 2**40) + b"few"))
    monkeypatch.setattr(pickles, "MOST_VALUES", 3)
    with pytest.raises(ServiceError, match="over 3 texts"):
        read_pickle(pickle.dumps(np.array(["a"] * 4)))


def outcome(content):
    """The kind of the one error that reading may raise."""
    try:
        read_pickle(content)
    except ServiceError as error:
        return error.kind
    return "value"


@given(content=st.binary(max_size=60))
def test_any_bytes_give_a_value_or_one_error(content):
    assert outcome(b"\x80\x04" + content + b".") in ("value", "request")


@given(place=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_changed_byte_gives_a_value_or_one_error(place, byte):
    content = bytearray(pickle.dumps({"images": [b"abc", np.zeros((2, 3), "u1")], "prompts": np.array(["a", "b"])}))
    content[place % len(content)] = byte
    assert outcome(bytes(content)) in ("value", "request")


def test_only_harmless_instructions_are_known():
    known = {code.name for code in pickletools.opcodes} & (
        pickles._LITERALS | pickles._CONSTANTS.keys() | pickles._SIZES.keys() | pickles._INSTRUCTIONS.keys()
    )
    harmful = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"}
    assert not known & harmful
