"""The one error a user can cause: a line that says what, the value, and what is allowed."""

import difflib
from collections.abc import Iterable

_LISTED = 20  # names that still fit on a line


class UserError(ValueError):
    """Input that the user can mend; the command line prints it as one line and exits with status 2."""


class OutOfMemory(UserError):
    """Not even one member fits into memory."""


def one_of(what: str, value: object, allowed: Iterable[str]) -> UserError:
    """Returns the error for a name that is not among `allowed`, with the nearest one suggested."""
    names = sorted(allowed)
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names) if len(names) <= _LISTED or not near else f"one of {len(names)} names"
    return UserError(f"{what} is {value!r}, allowed: {listed}{hint}")
