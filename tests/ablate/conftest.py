from tests.train.conftest import clips, make_config  # noqa: F401
