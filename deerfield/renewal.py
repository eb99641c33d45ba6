"""Credentials that follow their files: read again when these change, with a warning a day while one is due."""

from collections.abc import Callable
from datetime import datetime, timedelta

from deerfield.certificates import Credentials, Files, load, stamp
from deerfield.errors import InvalidInput

DAY = timedelta(days=1)


class Held:
    """What the files hold now, or held when they last could be used."""

    def __init__(self, files: Files, check: Callable[[Credentials], None], clock: Callable[[], datetime]) -> None:
        """Reads the files; `check` raises InvalidInput for credentials of the wrong owner.

        Raises:
            InvalidInput: a file cannot be used.
        """
        self._files, self._check, self._clock = files, check, clock
        self._stamp = self._stamped()
        self._warned: datetime | None = None
        self.own = self._read()

    def reread(self) -> bool:
        """Whether the files have changed into other credentials, which are `own` from now on.

        Raises:
            InvalidInput: they have changed into something that cannot be used, such as half of a new pair; told once.
        """
        if (now := self._stamped()) == self._stamp:
            return False
        self._stamp, old = now, self.own
        self.own = self._read()
        self._warned = None if self.own.warnings != old.warnings else self._warned
        return _bytes(self.own) != _bytes(old)

    def due_warnings(self) -> tuple[str, ...]:
        """What to warn of, at the first call and then once a day."""
        now = self._clock()
        if self._warned is not None and now - self._warned < DAY:
            return ()
        self._warned = now
        try:
            return load(self._files, now).warnings  # they change with the days
        except InvalidInput as error:
            return (str(error),)

    def _read(self) -> Credentials:
        own = load(self._files, self._clock())
        self._check(own)
        return own

    def _stamped(self) -> tuple[object, ...]:
        return stamp(self._files.certificate, self._files.key, self._files.authority)


def _bytes(own: Credentials) -> tuple[bytes, bytes, bytes]:
    return own.certificate, own.key, own.authority
