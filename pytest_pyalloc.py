"""pytest's plugin of pyalloc: ``pyalloc_leakcheck`` fails tests whose Buffers or managed objects outlive them.

Stands outside the package, because every pytest of the environment imports it, and that must not import pyalloc; the
work is done by pyalloc/_leakcheck.py.

    def test_a(pyalloc_leakcheck): ...                       # the fixture
    @pytest.mark.pyalloc_leakcheck(allow="cache.py")         # the same by a marker, with expected survivors
    pytest --pyalloc-leakcheck                               # all tests; or pyalloc_leakcheck = true in the ini file
    @pytest.mark.pyalloc_leakcheck(enabled=False)            # but not this one

A test is judged after the fixtures of its function are torn down, so what is found is reported as an error of the
teardown.  What fixtures of a wider scope made is not the test's.  A test that did not pass is not judged: its traceback
keeps its variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generator, Optional, Sequence, Union

import pytest

if TYPE_CHECKING:
    from pyalloc._leakcheck import LeakCheck

_NAME = "pyalloc_leakcheck"
_checks: dict[str, LeakCheck] = {}  # by node id, from the fixture's setup to the judgement
_raised: set[str] = set()  # node ids of those that did not pass
_holders: set[int] = set()  # sessions that keep the registry on, by the id of their config


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pyalloc")
    group.addoption("--pyalloc-leakcheck", action="store_true", default=False,
                    help="fail tests whose Buffers or managed objects of pyalloc outlive them")
    parser.addini(_NAME, "fail tests whose Buffers or managed objects of pyalloc outlive them", type="bool",
                  default=False)
    parser.addini(f"{_NAME}_allow", "places whose survivors are expected: parts of path/file.py:12 in function",
                  type="linelist", default=[])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{_NAME}(enabled=True, allow=()): fail the test when Buffers or managed objects of pyalloc outlive "
        "it; allow: expected places, parts of path/file.py:12 in function, or names of classes")


def _all_tests(config: pytest.Config) -> bool:
    return bool(config.getoption("--pyalloc-leakcheck") or config.getini(_NAME))


def _wants(item: pytest.Item) -> bool:
    marker = item.get_closest_marker(_NAME)
    if marker is not None:
        return _marked(marker)[0]
    return _all_tests(item.config) or _NAME in getattr(item, "fixturenames", ())


def _marked(marker: pytest.Mark) -> tuple[bool, list[str]]:
    """The marker's arguments: (enabled, allow)."""

    def read(*, enabled: bool = True, allow: Union[str, Sequence[str]] = ()) -> tuple[bool, list[str]]:
        return enabled, [allow] if isinstance(allow, str) else list(allow)

    try:
        return read(*marker.args, **marker.kwargs)
    except TypeError as error:
        raise pytest.UsageError(f"pytest.mark.{_NAME}: {str(error).replace('_marked.<locals>.read()', 'it')}") from None


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """The check stands in front of all fixtures of the function, so that it begins first and ends last."""
    for item in items:
        names: Optional[list[str]] = getattr(item, "fixturenames", None)
        if names is None or not _wants(item):
            continue
        definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
        rest = [name for name in names if name != _NAME]
        wider = [i for i, name in enumerate(rest)
                 if definitions.get(name) and definitions[name][-1].scope != "function"]
        place = wider[-1] + 1 if wider else 0
        item.fixturenames = [*rest[:place], _NAME, *rest[place:]]  # type: ignore[attr-defined]


@pytest.fixture
def pyalloc_leakcheck(request: pytest.FixtureRequest) -> LeakCheck:
    """Fails the test when Buffers or managed objects that were made meanwhile outlive it.

    Its value has allow(*places) for expected survivors, and survivors(), which can be asked in the test, too.
    """
    from pyalloc import _leakcheck

    config, node_id = request.config, request.node.nodeid
    if _all_tests(config) and id(config) not in _holders:
        _leakcheck.hold()  # all the time, so that reports can name references that are older than the test
        _holders.add(id(config))
    allow = [str(line) for line in config.getini(f"{_NAME}_allow")]
    for marker in request.node.iter_markers(_NAME):
        allow += _marked(marker)[1]
    _raised.discard(node_id)
    _checks[node_id] = _leakcheck.LeakCheck(allow)  # judged and closed after the teardown of all that follows
    return _checks[node_id]


def pytest_unconfigure(config: pytest.Config) -> None:
    if id(config) in _holders:
        from pyalloc import _leakcheck

        _holders.discard(id(config))
        _leakcheck.release()


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.excinfo is not None and item.nodeid in _checks:
        _raised.add(item.nodeid)


def _judge(item: pytest.Item, check: LeakCheck) -> Optional[str]:
    # pytest keeps the values of fixtures and the instance of a test's class a little longer.
    arguments = getattr(item, "funcargs", None)
    if arguments:
        arguments.clear()
    instance = getattr(item.__dict__.get("_obj"), "__self__", None)
    if isinstance(instance, getattr(item, "cls", None) or ()):
        vars(instance).clear()
    return check.report()


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, None]:
    """Old style, which every pytest since 7 and its pluggy know: this is loaded in all sessions of an environment."""
    outcome = yield
    check = _checks.pop(item.nodeid, None)
    if check is None:
        return
    try:
        passed = item.nodeid not in _raised and outcome.excinfo is None
        report = _judge(item, check) if passed else None
    finally:
        check.close()
        _raised.discard(item.nodeid)
    if report is not None:
        try:
            pytest.fail(f"what outlives the test: {report}", pytrace=False)
        except pytest.fail.Exception as failure:
            outcome.force_exception(failure)
