"""Layer 6: what a patch is: objects (the kernel or a module), their functions, callbacks and states.

The same shape as Linux's struct klp_patch (include/linux/livepatch.h), so that a description, a livepatch module and
the kernel's memory all end up as the same values.

What a patch promises: a task is in no old function of it any more when it runs the first new one. Between two calls
that a function makes one after the other a task may go over, unless that function is in the patch too: two functions
that must not be mixed within one system call need their common caller beside them, or one must call the other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from surefoot.errors import Inconsistent

__all__ = [
    "VMLINUX",
    "Callbacks",
    "Patch",
    "PatchFunction",
    "PatchObject",
    "PatchStateVersion",
    "validate",
]

VMLINUX: Final = "vmlinux"
"""Name of the object that is the kernel image itself."""

_OBJECT: Final = re.compile(r"[A-Za-z0-9_-]{1,55}", re.ASCII)
_PATCH: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,54}", re.ASCII)
_SYMBOL: Final = re.compile(r"[!-+\--~]{1,511}", re.ASCII)
"""Printable characters without blank and comma."""
_UNSIGNED: Final = 1 << 32
_LONG: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class PatchFunction:
    """One function to be replaced.

    Attributes:
        old: symbol of the old function.
        position: 0: the symbol must be unique; n: the nth of that name, in address order, from 1.
        new: symbol of the new function.
        module: that carries it; empty for the kernel image itself.
    """

    old: str
    position: int
    new: str
    module: str = ""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Symbols of functions to be called around patching an object; each empty for none.

    Attributes:
        pre_patch: before its functions are redirected; may veto.
        post_patch: when every task has gone over to the new code.
        pre_unpatch: before the transition back begins.
        post_unpatch: when the object is wholly unpatched; only if its pre_patch succeeded.
    """

    pre_patch: str = ""
    post_patch: str = ""
    pre_unpatch: str = ""
    post_unpatch: str = ""

    def __bool__(self) -> bool:
        return any((self.pre_patch, self.post_patch, self.pre_unpatch, self.post_unpatch))


@dataclass(frozen=True, slots=True)
class PatchObject:
    """Functions of the kernel, or of one module.

    Attributes:
        name: "vmlinux" or that of a module, which may be absent when the patch is applied.
        functions: of it.
        callbacks: around patching it.
    """

    name: str
    functions: tuple[PatchFunction, ...]
    callbacks: Callbacks = Callbacks()


@dataclass(frozen=True, slots=True)
class PatchStateVersion:
    """A change of the system's state that a patch makes and that later patches have to know.

    Attributes:
        id: which state.
        version: of it; a later patch needs at least as high a one.
    """

    id: int
    version: int = 0


@dataclass(frozen=True, slots=True)
class Patch:
    """A set of functions that are replaced together.

    Attributes:
        name: of the patch.
        objects: where the functions are.
        states: that it makes or takes over.
        replace: it takes the place of all patches before it, also for functions that it does not name.
    """

    name: str
    objects: tuple[PatchObject, ...]
    states: tuple[PatchStateVersion, ...] = ()
    replace: bool = False

    def functions(self) -> Iterator[tuple[str, PatchFunction]]:
        """Yield object name and function, in order."""
        for item in self.objects:
            for function in item.functions:
                yield item.name, function


def validate(patch: Patch) -> Patch:
    """Check that a patch makes sense in itself, whatever it is applied to.

    Args:
        patch: from anywhere.

    Returns:
        the same patch.

    Raises:
        Inconsistent: it does not; `section` says where.

    Source:
        klp_init_patch(), klp_init_object() and klp_init_func() in kernel/livepatch/core.c and the limits of
        Documentation/livepatch/module-elf-format.rst, of Linux 7.3.
    """
    _name(patch.name, _PATCH, "name", "of a patch")
    if not patch.objects:
        raise Inconsistent("the patch has no object", section="object")
    for i, item in enumerate(patch.objects):
        _object(item, f"object[{i}]", may_be_empty=patch.replace)
    _once((item.name for item in patch.objects), "object", "the object {} is named twice")
    for i, state in enumerate(patch.states):
        _number(state.id, _LONG, f"state[{i}].id")
        _number(state.version, _UNSIGNED, f"state[{i}].version")
    _once((state.id for state in patch.states), "state", "the state {} is named twice")
    return patch


def _object(item: PatchObject, place: str, *, may_be_empty: bool) -> None:
    _name(item.name, _OBJECT, f"{place}.name", "of an object (at most 55 letters, digits, _ and -)")
    if not item.functions and not item.callbacks and not may_be_empty:
        raise Inconsistent(f"the object {item.name} has neither functions nor callbacks", section=f"{place}.function")
    for i, function in enumerate(item.functions):
        _function(item.name, function, f"{place}.function[{i}]")
    for name in ("pre_patch", "post_patch", "pre_unpatch", "post_unpatch"):
        symbol = getattr(item.callbacks, name)
        if symbol:
            _name(symbol, _SYMBOL, f"{place}.callbacks.{name}", "of a symbol")
    _once(
        ((function.old, function.position) for function in item.functions),
        f"{place}.function",
        "the function {0[0]}, position {0[1]}, is replaced twice",
    )
    unique = {function.old for function in item.functions if function.position == 0}
    for i, function in enumerate(item.functions):
        if function.position and function.old in unique:
            raise Inconsistent(
                f"{function.old} cannot be unique (position 0) and have a position {function.position}",
                section=f"{place}.function[{i}].position",
            )


def _function(owner: str, function: PatchFunction, place: str) -> None:
    _name(function.old, _SYMBOL, f"{place}.old", "of a symbol")
    _name(function.new, _SYMBOL, f"{place}.new", "of a symbol")
    if function.module:
        _name(function.module, _OBJECT, f"{place}.module", "of a module")
    _number(function.position, _UNSIGNED, f"{place}.position")
    if function.old == function.new and (function.module or VMLINUX) == owner:
        raise Inconsistent(f"{function.old} would be replaced by itself", section=f"{place}.new")


def _name(name: str, allowed: re.Pattern[str], place: str, what: str) -> None:
    if not allowed.fullmatch(name):
        raise Inconsistent(f"{name[:60]!a} is not a name {what}" if name else "the name is empty", section=place)


def _number(value: int, end: int, place: str) -> None:
    if not 0 <= value < end:
        raise Inconsistent(f"{value} is not between 0 and {end - 1}", section=place)


def _once(items: Iterator[object], place: str, message: str) -> None:
    for item, count in Counter(items).items():
        if count > 1:
            raise Inconsistent(message.format(item), section=place)
