"""Layer 6: which version of a function runs: patches stacked on one another, and who sees which of them.

Bookkeeping as in struct klp_ops (kernel/livepatch/patch.c): per patched address the versions that patches brought,
newest first. What the livepatch handler does with it is flattened into two entries per address, one for tasks that
have not gone over and one for those that have; outside of a transition both are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from surefoot.errors import Inconsistent, NotApplied
from surefoot.patch.check import Range
from surefoot.patch.model import Patch, PatchFunction

__all__ = ["Body", "FunctionStack", "PatchStack", "Place", "Redirect", "Side", "Version"]


class Side(IntEnum):
    """The patch state of a task, with the kernel's numbers (include/linux/livepatch.h, klp_transition_patch)."""

    IDLE = -1
    """No transition is under way."""
    UNPATCHED = 0
    """It runs without the patch that is in transition."""
    PATCHED = 1
    """It runs with it."""

    @property
    def other(self) -> Side:
        """The opposite side of a transition."""
        return {Side.UNPATCHED: Side.PATCHED, Side.PATCHED: Side.UNPATCHED}.get(self, self)


@dataclass(frozen=True, slots=True)
class Body:
    """The code of one version of a function.

    Attributes:
        name: its symbol.
        entry: address of its first instruction.
        ranges: all code of it: the symbol and the parts that the compiler cut off (`surefoot.patch.check.ranges_of`).
            For new code also what it may end in by a tail branch, if that goes away with it.
    """

    name: str
    entry: int
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a target has a function of a patch.

    Attributes:
        old: the function as the kernel or module was built.
        new: the patch's.
    """

    old: Body
    new: Body


@dataclass(frozen=True, slots=True)
class Redirect:
    """What the livepatch handler does with calls of one function.

    Attributes:
        site: address of the function as it was built.
        unpatched: entry for tasks on the side UNPATCHED; `site` itself for no redirection.
        patched: entry for tasks on the side PATCHED.
    """

    site: int
    unpatched: int
    patched: int


@dataclass(frozen=True, slots=True)
class Version:
    """What one patch brought for one function.

    Attributes:
        patch: its name.
        body: the new code; None for a replacing patch that gives the function back (a "nop").
    """

    patch: str
    body: Body | None


@dataclass(slots=True)
class FunctionStack:
    """The versions of one function.

    Attributes:
        owner: the object that it belongs to.
        original: the function as it was built.
        versions: newest first.
    """

    owner: str
    original: Body
    versions: list[Version] = field(default_factory=list)

    def body_of(self, version: Version | None) -> Body:
        """Give the code that a version stands for; that of no version is the original's."""
        return self.original if version is None or version.body is None else version.body

    def select(self, side: Side, moving: str | None) -> Body:
        """Give the code that a call enters, as klp_ftrace_handler() decides.

        Args:
            side: of the calling task.
            moving: the patch in transition, if any.
        """
        top = self.versions[0] if self.versions else None
        if top is not None and top.patch == moving and side is not Side.PATCHED:
            return self.body_of(self.versions[1] if len(self.versions) > 1 else None)
        return self.body_of(top)

    def at(self, patch: str) -> int:
        """Give the place of a patch's version, 0 = newest, -1 for none."""
        return next((i for i, version in enumerate(self.versions) if version.patch == patch), -1)

    def searched(self, patch: str, goal: Side) -> tuple[Range, ...]:
        """Give the code that no task may be in when it goes over.

        Args:
            patch: the patch in transition.
            goal: PATCHED: the version being replaced is searched. UNPATCHED: the patch's own.

        Source:
            klp_check_stack_func() in kernel/livepatch/transition.c of Linux 7.3.
        """
        at = self.at(patch)
        if at < 0:
            return ()
        if goal is not Side.PATCHED:
            return self.body_of(self.versions[at]).ranges
        older = self.versions[at + 1 : at + 2]
        return self.body_of(older[0] if older else None).ranges


class PatchStack:
    """All patches that are in force or in transition, oldest first, and the functions they touch.

    Attributes:
        patches: by name, in the order in which they were applied.
    """

    def __init__(self) -> None:
        self.patches: dict[str, Patch] = {}
        self._functions: dict[int, FunctionStack] = {}
        self._stray: dict[int, tuple[Range, ...]] = {}

    def copy(self) -> PatchStack:
        """Give an equal one that can be changed without this one: changes are tried out and then put in force."""
        result = PatchStack()
        result.patches = dict(self.patches)
        result._functions = {
            site: FunctionStack(item.owner, item.original, list(item.versions))
            for site, item in self._functions.items()
        }
        result._stray = dict(self._stray)
        return result

    def __iter__(self) -> Iterator[FunctionStack]:
        return iter(self._functions.values())

    def compatible(self, patch: Patch) -> None:
        """Check that a patch may be put on top of those in force.

        Raises:
            NotApplied: it is there already, or does not know a state that an earlier patch made.

        Source:
            klp_is_patch_compatible() in kernel/livepatch/state.c: the same state needs at least the same version,
            and a patch that replaces has to know every state.
        """
        if patch.name in self.patches:
            raise NotApplied(f"the patch {patch.name} is applied already")
        new = {state.id: state.version for state in patch.states}
        for old in self.patches.values():
            for state in old.states:
                if state.id not in new:
                    if patch.replace:
                        raise NotApplied(
                            f"{patch.name} would replace {old.name} and does not know its state {state.id}"
                        )
                elif new[state.id] < state.version:
                    raise NotApplied(
                        f"{patch.name} has version {new[state.id]} of state {state.id}, and {old.name} has made"
                        f" version {state.version} of it"
                    )

    def add(self, patch: Patch, places: Mapping[str, Mapping[PatchFunction, Place]]) -> None:
        """Put a patch on top, with its functions in the objects that are there.

        Args:
            patch: compatible with those in force.
            places: object -> function -> where it is, for every object of the patch that is there.

        Raises:
            Inconsistent: two functions of the patch are one, or a function has two owners; nothing was added.
        """
        bodies = {name: self._bodies(name, found) for name, found in places.items()}
        _once(patch.name, [body for found in bodies.values() for body, _ in found])
        self.patches[patch.name] = patch
        for name, found in bodies.items():
            self._push(patch.name, name, found)
        if patch.replace:
            for function in self:
                self._give_back(patch.name, function)

    def arrive(self, owner: str, places: Mapping[str, Mapping[PatchFunction, Place]]) -> None:
        """Patch a module that has come, for every patch that names it.

        Args:
            owner: name of the module.
            places: patch -> function -> where it is.

        Raises:
            Inconsistent: as `add`; nothing was added.
        """
        found = {name: self._bodies(owner, places[name]) for name in self.patches if name in places}
        for name, bodies in found.items():
            _once(name, [body for body, _ in bodies])
        for name, patch in self.patches.items():
            self._push(name, owner, found.get(name, []))
            if patch.replace:
                for function in self:
                    if function.owner == owner:
                        self._give_back(name, function)

    def leave(self, owner: str) -> None:
        """Forget a module's functions: it goes away, and with it every task's reason to be in them."""
        gone = {site for site, item in self._functions.items() if item.owner == owner}
        self._functions = {site: item for site, item in self._functions.items() if site not in gone}
        self._stray = {site: ranges for site, ranges in self._stray.items() if site not in gone}

    def drop(self, patch: str) -> None:
        """Forget a patch: its transition back is over."""
        del self.patches[patch]
        for function in self:
            function.versions = [version for version in function.versions if version.patch != patch]
        self._prune()

    def replace_older(self, patch: str) -> tuple[str, ...]:
        """Forget all patches before one that replaces them, and its nops with them: its transition is over.

        Returns:
            the names of the patches that are gone.
        """
        older = tuple(self.patches)[: list(self.patches).index(patch)]
        for name in older:
            del self.patches[name]
        for function in self:
            function.versions = [
                item for item in function.versions if item.patch in self.patches and item.body is not None
            ]
        self._prune()
        return older

    def redirects(self, moving: str | None) -> list[Redirect]:
        """Give what the handler has to do at every site, in the order of addresses.

        Args:
            moving: the patch in transition, if any.
        """
        result = []
        for site, function in sorted(self._functions.items()):
            unpatched, patched = (function.select(side, moving).entry for side in (Side.UNPATCHED, Side.PATCHED))
            result.append(Redirect(site, unpatched, patched))
        return result

    def searched(self, patch: str, goal: Side) -> list[Range]:
        """Give all code that no task may be in when it goes over.

        Beside what `FunctionStack.searched` names, that is the code which an earlier transition was forced over, of
        the functions that this patch touches: tasks may be in it still.
        """
        found = []
        for site, function in self._functions.items():
            if function.at(patch) >= 0:
                found += [*function.searched(patch, goal), *self._stray.get(site, ())]
        return list(dict.fromkeys(found))

    def force(self, patch: str, goal: Side) -> None:
        """Remember that a transition was forced: tasks may stay in the code that it searched for."""
        for site, function in self._functions.items():
            found = function.searched(patch, goal)
            if found:
                self._stray[site] = tuple(dict.fromkeys((*self._stray.get(site, ()), *found)))

    def sites(self, patch: str) -> list[Range]:
        """Give the functions, as they were built, whose calls a patch redirects."""
        return [item for function in self if function.at(patch) >= 0 for item in function.original.ranges]

    def of(self, patch: str) -> list[FunctionStack]:
        """Give the functions that a patch has a version of, nops included."""
        return [function for function in self if function.at(patch) >= 0]

    def objects(self) -> Collection[str]:
        """Give the names of all objects that the patches speak of."""
        return {item.name for patch in self.patches.values() for item in patch.objects}

    def _bodies(self, owner: str, places: Mapping[PatchFunction, Place]) -> list[tuple[Body, Body]]:
        """Check places against what is known, before anything is changed."""
        result = []
        for function, place in places.items():
            known = self._functions.get(place.old.entry)
            if known is not None and known.owner != owner:
                raise Inconsistent(
                    f"{function.old} of {owner} lies where {known.original.name} of {known.owner} does"
                )
            result.append((place.old, place.new))
        return result

    def _push(self, patch: str, owner: str, bodies: list[tuple[Body, Body]]) -> None:
        for old, new in bodies:
            function = self._functions.setdefault(old.entry, FunctionStack(owner, old))
            function.versions.insert(0, Version(patch, new))

    def _give_back(self, patch: str, function: FunctionStack) -> None:
        if function.at(patch) < 0:
            function.versions.insert(0, Version(patch, None))

    def _prune(self) -> None:
        self._functions = {site: item for site, item in self._functions.items() if item.versions}


def _once(patch: str, bodies: Sequence[Body]) -> None:
    """Refuse two functions that are one: a version of it would lie below another of the same patch."""
    if len({body.entry for body in bodies}) != len(bodies):
        raise Inconsistent(f"{patch} replaces one function twice, by different names")
