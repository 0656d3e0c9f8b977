from tests.cli.conftest import diffai, plain_environment  # noqa: F401
