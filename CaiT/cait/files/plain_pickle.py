"""Reads a pickle as data: containers, numbers, text and bytes, and what a reader builds from them itself.

Python's own `pickle` follows what a file says: its memo grows to the index that is named, objects take any state, and
keys of any depth are hashed. Here the standard `pickletools` splits the pickle into instructions, and only those that
data needs are obeyed, within bounds. Nothing that a file names is imported: a reader gives the functions that stand
for the few names it knows.
"""

import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

MAX_STEPS = 1_000_000  # a checkpoint of a thousand tensors with an optimizer's state has a tenth of it
MAX_DEPTH = 64
MAX_INTEGER_BITS = 64
_KEYS = (str, bytes, int)
_ATOMS = {
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT"),
    *("BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class Name:
    """A global that the pickle names, and the reader's function that stands for it, if it may be called."""

    def __init__(self, name: str, function: Callable[..., Any] | None):
        self.name, self.function = name, function


class _Container:
    """A list, dict or tuple on the stack. One that lies in another takes nothing more, so that none holds itself."""

    __slots__ = ("depth", "is_open", "value")

    def __init__(self, value: Any, depth: int = 1):
        self.value, self.depth, self.is_open = value, depth, not isinstance(value, tuple)


def load(
    data: bytes,
    functions: Mapping[tuple[str, str], Callable[..., Any] | None],
    refused: str,
    reference: Callable[[Any], Any] | None = None,
) -> Any:
    """Reads a pickle: None, bools, ints, floats, text, bytes, lists, tuples, dicts and the functions' results.

    Strings of Python 2 are read as Latin-1 text.

    Args:
        data: the pickle.
        functions: by (module, name), what is called in place of the global that the pickle names, be that a function
            or a class whose objects are made. They get what the file holds and must check it; one that returns a dict
            gives a container, and one that returns an object with `set_state` gets its state. None: the name is a
            `Name` for the other functions, and is not called.
        refused: the end of the message on any other global.
        reference: gets each persistent id, and returns what it stands for.

    Raises:
        pickle.UnpicklingError: the pickle holds something else, or more than the bounds of this module.
        Exception: a damaged pickle raises almost anything.
    """
    machine = _Machine(functions, refused, reference)
    for steps, (instruction, argument, _) in enumerate(pickletools.genops(data)):
        if steps >= MAX_STEPS:
            raise pickle.UnpicklingError(f"a pickle of more than {MAX_STEPS} instructions")
        if instruction.name == "STOP":
            break
        machine.step(instruction.name, argument)
    return machine.result()


class _Machine:
    def __init__(self, functions, refused, reference):
        self.functions, self.refused, self.reference = functions, refused, reference
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        [value] = self._last(1)
        return _plain(value)

    def step(self, name: str, argument: Any) -> None:
        if name in _ATOMS:
            self.stack.append(_atom(_CONSTANTS.get(name, argument)))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            [value] = self._last(1)
            self.memo[len(self.memo) if argument is None else argument] = value
            self.stack.append(value)
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            if argument not in self.memo:
                raise pickle.UnpicklingError("a reference to a value that is not there")
            self.stack.append(self.memo[argument])
        elif name in _EMPTY:
            self.stack.append(_Container(_EMPTY[name]()))
        elif name in _TUPLES:
            self._collect(tuple, self._last(_TUPLES[name]))
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name not in ("PROTO", "FRAME"):
            method = getattr(self, f"_{name.lower()}", None)
            if method is None:
                raise pickle.UnpicklingError(f"an instruction that data does not need, {name}")
            method(*([] if argument is None else [argument]))

    def _last(self, count: int) -> list[Any]:
        start = len(self.stack) - count
        if start < 0 or any(item is _MARK for item in self.stack[start:]):
            raise pickle.UnpicklingError("a stack with too few values")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _since_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise pickle.UnpicklingError("a mark is missing")

    def _collect(self, kind: type, items: list[Any]) -> None:
        container = _Container(kind())
        values = [_embed(container, item) for item in items]
        container.value = kind(values)
        container.is_open = kind is not tuple
        self.stack.append(container)

    def _tuple(self) -> None:
        self._collect(tuple, self._since_mark())

    def _list(self) -> None:
        self._collect(list, self._since_mark())

    def _dict(self) -> None:
        items = self._since_mark()
        self.stack.append(_Container({}))
        self._set(items)

    def _open(self, kind: type) -> _Container:
        container = self.stack[-1] if self.stack else None
        if not isinstance(container, _Container) or type(container.value) is not kind or not container.is_open:
            raise pickle.UnpicklingError("values for something that is no open container")
        return container

    def _append(self) -> None:
        self._extend(self._last(1))

    def _appends(self) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        container = self._open(list)
        for item in items:
            container.value.append(_embed(container, item))

    def _setitem(self) -> None:
        self._set(self._last(2))

    def _setitems(self) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        container = self._open(dict)
        if len(items) % 2:
            raise pickle.UnpicklingError("a key without a value")
        for key, item in zip(items[::2], items[1::2]):
            if type(key) not in _KEYS:
                raise pickle.UnpicklingError("a key that is neither text nor a number")
            container.value[key] = _embed(container, item)

    def _global(self, name: str) -> None:
        self._name(*name.split(" ", 1))

    def _stack_global(self) -> None:
        self._name(*self._last(2))

    def _name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise pickle.UnpicklingError("a name that is no text")
        if (module, name) not in self.functions:
            raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'[:100]}, and {self.refused}")
        self.stack.append(Name(name, self.functions[module, name]))

    def _reduce(self) -> None:
        function, arguments = self._last(2)
        is_function = isinstance(function, Name) and function.function is not None
        if not is_function or type(_plain(arguments)) is not tuple:
            raise pickle.UnpicklingError("a call of something that is no function")
        self.stack.append(_wrapped(function.function(*_plain(arguments))))

    _newobj = _reduce  # what makes an object of a class: the same values on the stack, and here the same call

    def _build(self) -> None:
        target, state = self._last(2)
        if hasattr(target, "set_state"):
            target.set_state(_plain(state))
        elif not isinstance(target, _Container):  # the attributes of an OrderedDict: versions of layers, unused
            raise pickle.UnpicklingError("a state for something that has none")
        self.stack.append(target)

    def _binpersid(self) -> None:
        if self.reference is None:
            raise pickle.UnpicklingError("a reference to something outside the pickle")
        [pid] = self._last(1)
        self.stack.append(self.reference(_plain(pid)))

    def _pop(self) -> None:
        self._last(1)

    def _pop_mark(self) -> None:
        self._since_mark()


def _atom(value: Any) -> Any:
    if type(value) is int and value.bit_length() > MAX_INTEGER_BITS:
        raise pickle.UnpicklingError(f"a whole number of more than {MAX_INTEGER_BITS} bits")
    return value


def _plain(value: Any) -> Any:
    if value is _MARK:
        raise pickle.UnpicklingError("a mark in place of a value")
    return value.value if isinstance(value, _Container) else value


def _wrapped(value: Any) -> Any:
    return _Container(value) if type(value) is dict else value


def _embed(container: _Container, item: Any) -> Any:
    """What a container is to hold for an item of the stack."""
    if isinstance(item, _Container):
        item.is_open = False
        container.depth = max(container.depth, item.depth + 1)
        if container.depth > MAX_DEPTH:
            raise pickle.UnpicklingError(f"containers nested more than {MAX_DEPTH} deep")
        if not container.is_open and not isinstance(container.value, tuple):
            raise pickle.UnpicklingError("a container that holds itself")
    return _plain(item)
