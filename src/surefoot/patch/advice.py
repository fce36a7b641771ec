"""Layer 6: what an operator can do about a task that holds a transition of Linux's own livepatch up.

Source:
    kernel/livepatch/transition.c: klp_try_complete_transition looks at all tasks once a second; klp_send_signals
    wakes kernel threads that sleep interruptibly, and interrupts system calls of other tasks, every fifteenth time.
"""

from __future__ import annotations

from surefoot.patch.events import Hold

__all__ = ["advice_for"]


def advice_for(hold: Hold, *, kthread: bool, state: str, idle: bool, is_main: bool, is_safe: bool) -> str:
    """Give one or two sentences of advice.

    Args:
        hold: how the task holds the transition up.
        kthread: it is a kernel thread.
        state: letter as `ps` shows it.
        idle: it is the idle task of a CPU.
        is_main: what holds it is the thread's own main function.
        is_safe: its stack is certainly clear: only the kernel does not see that.
    """
    if idle:
        return "Wait: an idle task goes over whenever its CPU wakes up."
    if hold is Hold.ON_STACK:
        return _on_stack(kthread=kthread, state=state, is_main=is_main)
    if hold is Hold.CHOOSING:
        return "Wait: it leaves the tracer by itself as soon as it runs."
    if hold is Hold.UNKNOWN:
        return "Wait a second."
    if kthread:
        return "Wait until it sleeps; a kernel thread that never sleeps never goes over. " + (
            "It would be safe to force now." if is_safe else "Reverse the transition if it does not end."
        )
    ways = "Wait: it goes over when it returns to user space, or when the kernel finds it asleep."
    return ways + " Lower the load, or send it a signal, if that does not happen."


def _on_stack(*, kthread: bool, state: str, is_main: bool) -> str:
    """Advise on a task that has still to return into a function of the patch."""
    if is_main:
        return (
            "Waiting is in vain: this is the thread's main function, which is left only when the thread ends. "
            "Stop the thread, or reverse the transition."
        )
    if kthread:
        return "Wait until its work is done; the kernel wakes it every 15 seconds if it sleeps interruptibly."
    if state == "S":
        return "The kernel interrupts its system call after 15 seconds; a signal does so now: kill -CONT PID."
    if state == "D":
        return "It sleeps uninterruptibly: wait for what it waits for; kill -KILL helps if it can be killed there."
    return "Wait until it returns from the system call."
