"""The command `deerfield` in this process."""

from typer.testing import CliRunner

from deerfield.errors import DeerfieldError
from pipelines import cli


def deerfield(*arguments: object, answer: str | None = None, **environment: str) -> tuple[int, str]:
    """(exit code, what it printed); an error of deerfield is its code and its sentence."""
    done = CliRunner().invoke(cli.app, [*map(str, arguments)], env={"COLUMNS": "100", **environment}, input=answer)
    if isinstance(done.exception, DeerfieldError):
        assert "\n" not in str(done.exception)
        return done.exception.exit_code, str(done.exception)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output
