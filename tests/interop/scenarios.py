"""The table of scenarios, and what belongs to all of them."""

import time

from servers import PASSWORD

ALL = []


class World:
    """The two servers that meet: `near` is under test, `far` is the one we trust to be right."""

    def __init__(self, stage, near, far):
        self.stage = stage
        self.near = near
        self.far = far

    def near_users(self):
        for user in ("alice", "bob"):
            self.near.add_user(user)

    def far_users(self):
        for user in ("carol", "dave"):
            self.far.add_user(user)


def scenario(name, near=None):
    """Registers a scenario; `near` names the only kind of server it is about."""

    def register(function):
        ALL.append((name, near, function))
        return function

    return register


def body(words):
    """A text that no earlier scenario has sent."""
    return f"{words} {time.monotonic_ns()}"


__all__ = ["ALL", "PASSWORD", "World", "body", "scenario"]
