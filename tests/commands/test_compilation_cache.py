"""The cache of compiled steps: where it is, that it is used, and that it can do no harm."""

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from nlip_jax.commands import compilation_cache
from nlip_jax.errors import UsageError

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_enable_xla_caches",
)


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch):
    """Tests have a cache of their own, by the environment."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()


@pytest.fixture
def hits():
    """What JAX found in its cache."""
    found = []

    def listen(event, **_):
        if event == "/jax/compilation_cache/cache_hits":
            found.append(event)

    jax.monitoring.register_event_listener(listen)
    yield found
    jax.monitoring.unregister_event_listener(listen)


@pytest.fixture
def compile_and_run():
    """Compiles the same function, ahead of time, as a new process would; its result."""

    def run() -> np.ndarray:
        jax.clear_caches()
        x = jax.ShapeDtypeStruct((16, 16), np.float32)
        compiled = jax.jit(jax.grad(lambda x: (x @ x).sum())).lower(x).compile()
        return np.asarray(compiled(np.arange(256, dtype=np.float32).reshape(16, 16) / 99))

    return run


def folder_in_use() -> str | None:
    return jax.config.jax_compilation_cache_dir


def test_where_it_is(tmp_path, monkeypatch):
    compilation_cache.use("auto", tmp_path)
    assert folder_in_use() == str(tmp_path / "compilation_cache")
    compilation_cache.use("none", tmp_path)
    assert folder_in_use() is None
    compilation_cache.use(str(tmp_path / "a" / "b"), tmp_path)
    assert folder_in_use() == str(tmp_path / "a" / "b")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "theirs"))
    compilation_cache.use("auto", tmp_path)
    assert folder_in_use() == str(tmp_path / "theirs")
    compilation_cache.use("none", tmp_path)  # said in so many words
    assert folder_in_use() is None


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"config.compilation_cache=.*file.*auto or none"):
        compilation_cache.use(str(tmp_path / "file"), tmp_path)


def test_the_second_start_finds_what_the_first_one_compiled(tmp_path, hits, compile_and_run):
    compilation_cache.use("none", tmp_path)
    plain = compile_and_run()
    compilation_cache.use("auto", tmp_path)
    np.testing.assert_array_equal(compile_and_run(), plain)
    assert not hits
    compilation_cache.use("auto", tmp_path)
    np.testing.assert_array_equal(compile_and_run(), plain)
    assert hits
    (tmp_path / "compilation_cache").rename(tmp_path / "moved")
    hits.clear()
    compilation_cache.use(str(tmp_path / "moved"), tmp_path)
    np.testing.assert_array_equal(compile_and_run(), plain)
    assert hits


@pytest.mark.parametrize("size", [0, 5, 700])
def test_a_torn_entry_is_written_again(tmp_path, hits, compile_and_run, size):
    compilation_cache.use("auto", tmp_path)
    plain = compile_and_run()
    entries = list((tmp_path / "compilation_cache").glob("*-cache"))
    contents = {path: path.read_bytes() for path in entries}
    for path, content in contents.items():
        path.write_bytes(content[:size])
    compilation_cache.use("auto", tmp_path)
    np.testing.assert_array_equal(compile_and_run(), plain)
    assert not hits
    assert all(path.stat().st_size > size for path in entries)


def test_an_entry_that_is_spoiled_meanwhile_is_compiled_again(tmp_path, compile_and_run):
    compilation_cache.use("auto", tmp_path)
    plain = compile_and_run()
    for path in (tmp_path / "compilation_cache").glob("*-cache"):
        path.write_bytes(b"\x28\xb5\x2f\xfd" + path.read_bytes()[4:])
    compilation_cache.use("auto", tmp_path)
    with pytest.warns(UserWarning, match="persistent compilation cache"):
        again = compile_and_run()
    np.testing.assert_array_equal(again, plain)
