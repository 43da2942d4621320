"""The marker soak: longer stress runs, left out unless asked for (pytest -m soak, which CI does)."""


def pytest_configure(config):
    config.addinivalue_line("markers", "soak: longer stress runs; only with -m soak")


def pytest_collection_modifyitems(config, items):
    if "soak" in config.getoption("-m", default=""):
        return
    soaks = [item for item in items if item.get_closest_marker("soak")]
    if soaks:
        config.hook.pytest_deselected(items=soaks)
        items[:] = [item for item in items if item not in soaks]
