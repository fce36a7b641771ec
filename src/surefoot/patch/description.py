"""Layer 6: patch descriptions: TOML text to a patch, with errors that name the file and the key.

A description lists what a livepatch module holds in its struct klp_patch::

    name = "cmdline"
    replace = false

    [[object]]
    name = "vmlinux"

    [[object.function]]
    old = "cmdline_proc_show"
    position = 0
    new = "new_cmdline_proc_show"
    module = "cmdline_patch"

    [object.callbacks]
    pre_patch = "cmdline_prepare"

    [[state]]
    id = 1
    version = 1
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any, Final

from surefoot.errors import Inconsistent, InputError
from surefoot.patch.model import Callbacks, Patch, PatchFunction, PatchObject, PatchStateVersion, validate

__all__ = ["parse_description"]

_REQUIRED: Final = object()
_KINDS: Final = {str: "a string", int: "a whole number", bool: "true or false", list: "an array", dict: "a table"}


def parse_description(text: str, file: str = "") -> Patch:
    """Read a patch description.

    Args:
        text: TOML.
        file: its name, for errors.

    Returns:
        the patch, valid in itself.

    Raises:
        InputError: it is not TOML, or not a description; the error names the file and the key.
    """
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise Inconsistent("the TOML is nested too deeply", file=file) from error
    except ValueError as error:
        raise InputError(f"not TOML: {error}", file=file) from error
    try:
        return validate(_patch(_Table(table, "")))
    except InputError as error:
        raise error.at(file=file) from None


class _Table:
    """One table of the description: every key is taken out once, and none may be left."""

    def __init__(self, table: Mapping[str, Any], place: str) -> None:
        self._rest = dict(table)
        self._place = place

    def place(self, key: str) -> str:
        return f"{self._place}.{key}" if self._place else key

    def take(self, key: str, kind: type, default: Any = _REQUIRED) -> Any:
        """Take a value out, of exactly this type (TOML's true is not a number)."""
        value = self._rest.pop(key, default)
        if value is _REQUIRED:
            raise Inconsistent(f"the key {key!r} is missing", section=self.place(key))
        if type(value) is not kind:
            raise Inconsistent(f"must be {_KINDS[kind]}, not {_name_of(value)}", section=self.place(key))
        return value

    def tables(self, key: str) -> list[_Table]:
        """Take an array of tables out; none at all is an empty one."""
        result = []
        for i, item in enumerate(self.take(key, list, [])):
            place = f"{self.place(key)}[{i}]"
            if type(item) is not dict:
                raise Inconsistent(f"must be a table, not {_name_of(item)}", section=place)
            result.append(_Table(item, place))
        return result

    def table(self, key: str) -> _Table:
        return _Table(self.take(key, dict, {}), self.place(key))

    def finish(self, known: tuple[str, ...]) -> None:
        """Refuse keys that nobody has asked for: they are misspelt."""
        for key in self._rest:
            raise Inconsistent(
                f"unknown key {key[:60]!a}", section=self._place, hint=f"The keys here are {', '.join(known)}."
            )


def _name_of(value: object) -> str:
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _patch(table: _Table) -> Patch:
    name = table.take("name", str)
    replace = table.take("replace", bool, default=False)
    objects = tuple(_object(item) for item in table.tables("object"))
    states = tuple(_state(item) for item in table.tables("state"))
    table.finish(("name", "replace", "object", "state"))
    return Patch(name=name, objects=objects, states=states, replace=replace)


def _object(table: _Table) -> PatchObject:
    name = table.take("name", str)
    functions = tuple(_function(item) for item in table.tables("function"))
    callbacks = _callbacks(table.table("callbacks"))
    table.finish(("name", "function", "callbacks"))
    return PatchObject(name=name, functions=functions, callbacks=callbacks)


def _function(table: _Table) -> PatchFunction:
    function = PatchFunction(
        old=table.take("old", str),
        position=table.take("position", int, 0),
        new=table.take("new", str),
        module=table.take("module", str, ""),
    )
    table.finish(("old", "position", "new", "module"))
    return function


def _callbacks(table: _Table) -> Callbacks:
    names = ("pre_patch", "post_patch", "pre_unpatch", "post_unpatch")
    callbacks = Callbacks(*(table.take(name, str, "") for name in names))
    table.finish(names)
    return callbacks


def _state(table: _Table) -> PatchStateVersion:
    state = PatchStateVersion(id=table.take("id", int), version=table.take("version", int, 0))
    table.finish(("id", "version"))
    return state
