"""The little kernel and the engine as a state machine for hypothesis, with the invariants of `patch_driver`."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from patch_driver import Driver
from patch_world import PATCHES

__all__ = ["Machine"]

NAMES = st.sampled_from(sorted(PATCHES))


class Machine(RuleBasedStateMachine):
    """Operators, tasks, modules and bad luck, in any order."""

    driver: Driver

    @initialize(seed=st.integers(0, 2**16), timeout=st.sampled_from((None, 200.0, 2000.0)), steps=st.integers(0, 80))
    def start(self, seed: int, timeout: float | None, steps: int) -> None:
        self.driver = Driver(seed, timeout=timeout)
        self.driver.world.steps(steps)

    @rule(name=NAMES)
    def apply(self, name: str) -> None:
        self.driver.begin(name, revert=False)

    @rule(name=NAMES)
    def revert(self, name: str) -> None:
        self.driver.begin(name, revert=True)

    @precondition(lambda self: self.driver.running is not None)
    @rule(count=st.integers(1, 30))
    def advance(self, count: int) -> None:
        self.driver.advance(count)

    @rule(count=st.integers(1, 40))
    def system_calls(self, count: int) -> None:
        self.driver.steps(count)

    @rule()
    def sleep_long(self) -> None:
        self.driver.park()

    @rule()
    def wake(self) -> None:
        self.driver.release()

    @rule()
    def reverse(self) -> None:
        self.driver.reverse()

    @rule()
    def load_or_unload(self) -> None:
        self.driver.module()

    @rule()
    def interrupt_thrown(self) -> None:
        self.driver.throw()

    @rule(calls=st.integers(1, 25))
    def interrupt_later(self, calls: int) -> None:
        self.driver.world.interrupt_in = calls

    @rule(calls=st.integers(1, 25))
    def error_later(self, calls: int) -> None:
        self.driver.world.interrupt_in, self.driver.world.broken = calls, True

    @rule()
    def drop(self) -> None:
        self.driver.close()

    @rule()
    def resume(self) -> None:
        self.driver.resume()

    @rule()
    def fail_to_write(self) -> None:
        self.driver.world.fail_redirect = 1

    @rule(name=NAMES)
    def veto(self, name: str) -> None:
        self.driver.world.fail_callbacks.add(f"{name}.pre_patch")

    @invariant()
    def nothing_is_wrong(self) -> None:
        if hasattr(self, "driver"):
            assert self.driver.problems == []

    def teardown(self) -> None:
        if hasattr(self, "driver") and not self.driver.problems:
            self.driver.drain()
            assert self.driver.problems == []
