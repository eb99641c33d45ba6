"""MLflow's database before the server starts: it answers, has the tables of this MLflow, and has the account."""

from alembic.util.exc import CommandError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from deerfield.errors import InvalidInput
from services.databases import Address, sentence
from services.tracking.settings import Account


def prepare(address: Address, account: Account | None) -> None:
    """Makes the tables, or brings those of an earlier MLflow up to date; then the account has the password it is given.

    Whoever changes the Secret changes the password, at the next start; MLflow itself would keep the first one.

    Raises:
        InvalidInput: the database cannot be used, or is of a later MLflow.
    """
    try:
        _ask(address)
        _migrate(address)
        if account is not None:
            _admit(address, account)
    except DBAPIError as error:
        raise InvalidInput(sentence(address, error)) from error
    except CommandError as error:
        raise InvalidInput(
            f"database: {address.where} is not of this MLflow or an earlier one ({error}); start the version that made "
            "it, or restore a backup of before"
        ) from error


def url(address: Address) -> str:
    """The URL with its password, for MLflow, which is given it in the environment and in a file."""
    return address.url.render_as_string(hide_password=False)


def _ask(address: Address) -> None:
    """Fails at once where MLflow would try for two minutes."""
    if address.kind == "sqlite" and not address.file.parent.is_dir():
        raise InvalidInput(f"database: there is no folder {address.file.parent}; make it, or mount a volume there")
    engine = create_engine(address.url)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    finally:
        engine.dispose()


def _migrate(address: Address) -> None:
    """`mlflow db upgrade`, in this process: a command line would show the password."""
    from mlflow.db import upgrade

    upgrade.main([url(address)], standalone_mode=False)


def _admit(address: Address, account: Account) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore()
    store.init_db(url(address))
    try:
        if not store.has_user(account.username):
            store.create_user(account.username, account.password, is_admin=True)
        elif not store.authenticate_user(account.username, account.password):
            store.update_user(account.username, password=account.password)
    except MlflowException as error:
        raise InvalidInput(f"account: MLflow refuses it ({error.message})") from error
    finally:
        store.engine.dispose()
