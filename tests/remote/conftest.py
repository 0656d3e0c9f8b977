import pytest

from diffai_stream.storage.remote import service
from tests.remote.pairs import moved, records, write_folders, write_pair
from tests.remote.server import serving


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(service, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(service, "STALL_SECONDS", 1.0)


@pytest.fixture
def web():
    """(files, address) of a web server."""
    with serving() as found:
        yield found


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def expected(pair):
    """The records of the pair at two addresses."""
    local = records(*pair)
    return lambda *addresses: moved(local, pair, addresses)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("folders"))


@pytest.fixture(scope="session")
def expected_of_folders(folders):
    """The records of the folders at two addresses, with all that configuration and vocabulary tell."""
    local = records(*folders, all_analyses=True)
    return lambda *addresses: moved(local, folders, addresses)


@pytest.fixture
def served(web, pair):
    """The addresses of the pair on the web server."""
    files, address = web
    files.folder("m", pair[0].parent)
    return [f"{address}/m/{path.name}" for path in pair]
