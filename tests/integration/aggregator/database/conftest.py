"""The database of a test, of either kind."""

import pytest

from services.aggregator.sql.database import open_database


@pytest.fixture
def url(database, tmp_path):
    return database(tmp_path)


@pytest.fixture
def opened(url):
    found = open_database(url, takeover_s=1)
    yield found
    found.close()
