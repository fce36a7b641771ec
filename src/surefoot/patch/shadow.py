"""Layer 6: shadow variables: data that a patch attaches to objects whose type it cannot change.

The semantics of kernel/livepatch/shadow.c: a variable is found by (object, id); constructors run before a variable
can be found, destructors after it no longer can; what a constructor refuses was never attached.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from surefoot.errors import PatchError

__all__ = ["ShadowVariables"]

T = TypeVar("T")


class ShadowVariables(Generic[T]):
    """All shadow variables of a target.

    An object is whatever identifies it, such as its address; that it still exists is the caller's business, as in
    the kernel: who frees an object frees its variables first.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[Hashable, int], T] = {}
        self._busy = False

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[tuple[Hashable, int]]:
        return iter(tuple(self._values))

    def get(self, obj: Hashable, variable: int) -> T | None:
        """Give a variable of an object, None if there is none (klp_shadow_get)."""
        return self._values.get((obj, variable))

    def attach(self, obj: Hashable, variable: int, make: Callable[[], T]) -> T:
        """Attach a new variable (klp_shadow_alloc).

        Args:
            obj: the object.
            variable: id.
            make: the constructor; it may use no shadow variables itself (it runs under their lock) and may raise.

        Raises:
            PatchError: the object has that variable already; the constructor was not called.
        """
        if (obj, variable) in self._values:
            raise PatchError(f"the object has a shadow variable {variable:#x} already")
        return self.get_or_alloc(obj, variable, make)

    def get_or_alloc(self, obj: Hashable, variable: int, make: Callable[[], T]) -> T:
        """Give a variable, attached now if it was not there (klp_shadow_get_or_alloc)."""
        key = (obj, variable)
        if key not in self._values:
            self._lock()
            try:
                value = make()
            finally:
                self._busy = False
            self._values[key] = value
        return self._values[key]

    def free(self, obj: Hashable, variable: int, destroy: Callable[[Hashable, T], None] | None = None) -> bool:
        """Detach a variable, then destroy it (klp_shadow_free); gives whether there was one."""
        self._lock()
        try:
            if (obj, variable) not in self._values:
                return False
            value = self._values.pop((obj, variable))
            if destroy is not None:
                destroy(obj, value)
        finally:
            self._busy = False
        return True

    def free_all(self, variable: int, destroy: Callable[[Hashable, T], None] | None = None) -> int:
        """Detach and destroy a variable of every object that has it (klp_shadow_free_all); gives how many."""
        found = [obj for obj, name in self._values if name == variable]
        for obj in found:
            self.free(obj, variable, destroy)
        return len(found)

    def _lock(self) -> None:
        """Refuse what would be a deadlock in the kernel: its constructors and destructors run under a spinlock."""
        if self._busy:
            raise PatchError("a constructor or destructor of a shadow variable used shadow variables itself")
        self._busy = True
