"""Read the pickles that trainers' clients send, without running them.

    fields = read_pickle(pickle.dumps({"images": [jpeg], "prompts": ["a red ball"]}))

Unpickling calls whatever functions a pickle names. Here Python's unpickler never sees the content: a small interpreter
knows the instructions that write lists, dicts, tuples, texts, bytes, numbers and NumPy's arrays of numbers or texts,
and nothing else. This module makes an array from its bytes; no function that a pickle names is looked up or called."""

import pickletools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from descore.errors import short_repr
from descore.serving.problems import ServiceError

MOST_INSTRUCTIONS = 200_000
"""Of a pickle. A batch of 64 videos of 81 frames each takes a tenth of them."""
MOST_VALUES = 200_000
"""That the result holds, where a value that is named twice counts twice: a few bytes can name a list of lists of lists
so often that nobody could read it."""
DEEPEST = 16
"""Lists and dicts in one another."""

_ARRAY_TYPE = re.compile(r"(b1|[iu][1248]|f[248]|U[1-9]\d{0,5})")
"""Booleans, numbers and texts; no objects."""
_LITERALS: Final = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_SIZES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(content: bytes) -> Any:  # noqa: ANN401  # whatever lists and dicts hold
    """The value of a pickle (protocols 2 to 5), its arrays as NumPy's.

    ServiceError (request) for what is no whole pickle, and for one that holds anything else."""
    reader = _Reader()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count >= MOST_INSTRUCTIONS:
                raise _refused(f"more than {MOST_INSTRUCTIONS:,} instructions")
            reader.take(opcode.name, argument)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ServiceError):
            raise
        raise ServiceError("request", f"the body is no whole pickle ({short_repr(str(error))})") from None
    return _finished(reader.result(), budget=iter(range(MOST_VALUES)), depth=0)


def _refused(what: str) -> ServiceError:
    return ServiceError("request", f"the pickle has {what}; expected lists, dicts, texts, bytes, numbers and arrays")


class _Reader:
    """A stack, marks in it, and what was memorized: the machine that a pickle's instructions drive."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:  # noqa: ANN401
        """The one value that is left at the end."""
        if len(self.stack) != 1 or self.marks:
            raise _refused("no end")
        return self.stack[0]

    def take(self, name: str, argument: Any) -> None:  # noqa: ANN401
        """Follow one instruction."""
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _SIZES:
            self._tuple(len(self.stack) - _SIZES[name])
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        else:
            raise _refused(f"the instruction {name}")

    def mark(self, _: object) -> None:
        self.marks.append(len(self.stack))

    def items(self) -> list[Any]:
        """What lies above the last mark."""
        start = self.marks.pop()
        if start > len(self.stack):
            raise IndexError("a mark above the stack")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def tuple_of_items(self, _: object) -> None:
        self.stack.append(tuple(self.items()))

    def _tuple(self, start: int) -> None:
        if start < 0:
            raise IndexError("an empty stack")
        self.stack[start:] = [tuple(self.stack[start:])]

    def extend(self, items: Sequence[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise _refused("items of what is no list")
        self.stack[-1].extend(items)

    def update(self, items: Sequence[Any]) -> None:
        """Set keys of a dict. A key is a text: tuples in tuples take forever to hash."""
        target, keys = self.stack[-1], items[::2]
        if type(target) is not dict or len(items) % 2 or any(type(key) is not str for key in keys):
            raise _refused("a dict whose keys are no texts")
        target.update(zip(keys, items[1::2], strict=True))

    def memorize(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def look_up(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def name(self, text: str | None) -> None:
        """Push a function or class by its name, if it is one of NumPy's that are known here."""
        if text is None:
            attribute, module = self.stack.pop(), self.stack.pop()
            text = f"{module} {attribute}"
        if text not in _KNOWN:
            raise _refused(f"the name {short_repr(text.replace(' ', '.'))}, which is not run")
        self.stack.append(_Name(_KNOWN[text]))

    def call(self, _: object) -> None:
        """Make what NumPy's function would make of its arguments."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not _Name or type(arguments) is not tuple or function.make is None:
            raise _refused("a call of what is no function")
        self.stack.append(function.make(*arguments))

    def build(self, _: object) -> None:
        """Give an array or its type the state that it was saved with."""
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, _Array | _Type) or type(state) is not tuple:
            raise _refused("a state of what is no array")
        target.set_state(*state)


_INSTRUCTIONS: Final[dict[str, Callable[[_Reader, Any], None]]] = {
    "PROTO": lambda _, __: None,
    "FRAME": lambda _, __: None,
    "STOP": lambda _, __: None,
    "MARK": _Reader.mark,
    "EMPTY_LIST": lambda reader, _: reader.stack.append([]),
    "EMPTY_DICT": lambda reader, _: reader.stack.append({}),
    "EMPTY_TUPLE": lambda reader, _: reader.stack.append(()),
    "TUPLE": _Reader.tuple_of_items,
    "APPEND": lambda reader, _: reader.extend([reader.stack.pop()]),
    "APPENDS": lambda reader, _: reader.extend(reader.items()),
    "SETITEM": lambda reader, _: reader.update([reader.stack.pop(-2), reader.stack.pop()]),
    "SETITEMS": lambda reader, _: reader.update(reader.items()),
    "MEMOIZE": _Reader.memorize,
    "BINPUT": _Reader.memorize,
    "LONG_BINPUT": _Reader.memorize,
    "BINGET": _Reader.look_up,
    "LONG_BINGET": _Reader.look_up,
    "GLOBAL": _Reader.name,
    "STACK_GLOBAL": _Reader.name,
    "REDUCE": _Reader.call,
    "BUILD": _Reader.build,
}


class _Name:
    """One of NumPy's names, and what stands for it here."""

    def __init__(self, make: Callable[..., Any] | None) -> None:
        self.make = make


class _Type:
    """An array's type; its byte order comes as its state."""

    def __init__(self, text: object = None, *_: object) -> None:
        if not (isinstance(text, str) and _ARRAY_TYPE.fullmatch(text)):
            raise _refused(f"an array of type {short_repr(text)}")
        self.text, self.order = text, "="

    def set_state(self, *state: object) -> None:
        order = state[1] if len(state) > 1 else None
        if order not in ("<", ">", "|", "=") or any(state[2:5]):
            raise _refused("an array of a structured type")
        self.order = str(order)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.text)


class _Array:
    """An array that is made from its bytes."""

    def __init__(self, *_: object) -> None:
        self.value: NDArray[Any] | None = None

    @property
    def is_text(self) -> bool:
        return self.value is not None and self.value.dtype.kind == "U"

    def set_state(self, *state: object) -> None:
        if len(state) != 5 or not isinstance(state[3], bool | int):
            raise _refused("an array whose state is unknown")
        _, shape, kind, columns, content = state
        self.value = _array_of(content, kind, shape, order="F" if columns else "C")


def _from_buffer(*arguments: object) -> _Array:
    """An array of protocol 5: bytes, type, shape, order; order K has the axes' order behind it."""
    if len(arguments) not in (4, 5) or arguments[3] not in ("C", "F", "K"):
        raise _refused("an array whose state is unknown")
    content, kind, shape, order = arguments[:4]
    array = _Array()
    array.value = _array_of(content, kind, shape, order=str(order))
    if order == "K":
        axes = arguments[4] if len(arguments) == 5 else None
        if not isinstance(axes, tuple):
            raise _refused("an array whose axes have no order")
        array.value = array.value.transpose(axes)  # ValueError for what is no permutation
    return array


def _scalar(*arguments: object) -> object:
    if len(arguments) != 2:
        raise _refused("a number whose state is unknown")
    kind, content = arguments
    return _array_of(content, kind, (), order="C").item()


def _array_of(content: object, kind: object, shape: object, *, order: str) -> NDArray[Any]:
    """An array (shape) of these bytes. As many bytes as the shape needs must be there: none are allocated for it."""
    if not (isinstance(content, bytes | bytearray) and isinstance(kind, _Type)):
        raise _refused("an array of something else than bytes")
    if not isinstance(shape, tuple) or any(type(length) is not int or not 0 <= length < 2**31 for length in shape):
        raise _refused("an array whose shape is none")
    if prod(shape) * kind.dtype.itemsize != len(content):
        raise _refused(f"an array of shape {shape} with {len(content)} bytes")
    if kind.dtype.kind == "U":
        _check_characters(np.frombuffer(content, f"{kind.order}u4"))
    array: NDArray[Any] = np.ndarray(shape, kind.dtype, buffer=content, order="F" if order == "F" else "C")
    return array


def _check_characters(points: NDArray[np.uint32]) -> None:
    """Refuse numbers that are no characters: NumPy would make a text of them that breaks the interpreter."""
    if points.size and (points.max() > sys.maxunicode or ((points >= 0xD800) & (points < 0xE000)).any()):
        raise _refused("a text that is none")


_KNOWN: Final[dict[str, Callable[..., Any] | None]] = {
    "numpy ndarray": None,  # an argument of _reconstruct
    "numpy dtype": _Type,
    **{
        f"numpy.{core}.{name}": make
        for core in ("core", "_core")  # NumPy 1 and 2
        for name, make in (
            ("multiarray _reconstruct", _Array),
            ("multiarray scalar", _scalar),
            ("numeric _frombuffer", _from_buffer),
        )
    },
}


def _texts(array: NDArray[Any]) -> Any:  # noqa: ANN401  # lists in lists, or a text
    if array.size > MOST_VALUES:
        raise _refused(f"over {MOST_VALUES:,} texts")
    return array.tolist()


def _is_text(value: str) -> bool:
    """Whether all are characters: half a surrogate pair is none."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _finished(value: Any, *, budget: Iterator[int], depth: int) -> Any:  # noqa: ANN401
    """The value with arrays in the place of what stood for them."""
    if next(budget, None) is None or depth > DEEPEST:
        raise _refused(f"over {MOST_VALUES:,} values, or lists in one another {DEEPEST} deep")
    if isinstance(value, list | tuple):
        return [_finished(item, budget=budget, depth=depth + 1) for item in value]
    if isinstance(value, dict):
        return {key: _finished(item, budget=budget, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, _Array):
        if value.value is None:
            raise _refused("an array without its bytes")
        return _finished(_texts(value.value), budget=budget, depth=depth) if value.is_text else value.value
    if isinstance(value, str) and not _is_text(value):
        raise _refused("a text that is none")
    if isinstance(value, _Name | _Type):
        raise _refused("a name that nothing uses")
    return value
