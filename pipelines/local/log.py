"""What kfp.local writes, as a person reads it: a line when a task begins and ends, and what the task itself said."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pipelines.processes.children import error_in

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
BEGINS = re.compile(r"Executing task '([^']+)'")
STREAMS = "Streamed logs:"
ENDS = re.compile(r"Task '([^']+)' finished with status (\w+)")
SKIPS = re.compile(r"Skipping (?:conditional )?task ([\w-]+)")
INDENT = "    "  # of what a task says
EXECUTOR = "[KFP Executor"  # begins the lines of KFP's own program in the task's process
DUMPS, DUMPED = "Got executor_input:", "}"  # the first and last lines of its input


@dataclass
class Told:
    """Takes raw lines, one by one, and says what is worth it."""

    say: Callable[[str], object]
    clock: Callable[[], float] = time.monotonic
    error: str = ""  # the sentence of the first task that failed
    failed: str = ""  # its name
    _task: str = ""
    _streams: bool = False
    _dumps: bool = False
    _began: float = 0.0
    _last: str = ""
    _skipped: set[str] = field(default_factory=set)

    def line(self, raw: str) -> None:
        """One line, with or without its end."""
        text = COLOUR.sub("", raw.rstrip("\n"))
        if found := BEGINS.search(text):
            self._task, self._began, self._last = found[1], self.clock(), ""
            self.say(f"{self._task}")
        elif STREAMS in text:
            self._streams, self._dumps = True, False
        elif (ended := ENDS.search(text)) and ended[1] == self._task:
            self._end(ended[2])
        elif skipped := SKIPS.search(text):
            self._skip(skipped[1])
        elif self._streams:
            self._said(text.removeprefix(INDENT))

    def _said(self, text: str) -> None:
        if self._dumps:
            self._dumps = text != DUMPED
        elif text.startswith(EXECUTOR):
            self._dumps = text.endswith(DUMPS)
        elif text.strip():
            self._last = text
            self.say(f"  {text}")

    def _end(self, status: str) -> None:
        self._streams = False
        spent = f"{self.clock() - self._began:.0f} s"
        if status == "SUCCESS":
            self.say(f"  done in {spent}")
            return
        self.say(f"  failed after {spent}")
        if not self.failed:
            self.failed, self.error = self._task, error_in(self._last) or self._last

    def _skip(self, task: str) -> None:
        if task not in self._skipped:
            self._skipped.add(task)
            self.say(f"{task.removeprefix('condition-')}: skipped")
