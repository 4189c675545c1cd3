"""Whatever a file holds, its reader takes it or refuses it with a sentence.

A few examples each, so that it is quick; ``SONIBOOK_FUZZ_EXAMPLES=5000`` tries more, and
``make fuzz`` goes on for minutes, guided by coverage.
"""

import os
from pathlib import Path

import pytest
from fuzzing import add_up, runs_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import READERS, Reader

EXAMPLES = int(os.environ.get("SONIBOOK_FUZZ_EXAMPLES", "25"))

shares = st.floats(0, 1, exclude_max=True)
#: What is done to a seed: the name of the damage, where (as a share of its length), and with what.
damages = st.one_of(
    st.tuples(st.just("cut"), shares, st.just(b"")),
    st.tuples(st.just("flip"), shares, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("grow"), shares, st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("drop"), shares, st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("double"), shares, st.just(b"")),
)


def damaged(content: bytes, damage: tuple[str, float, bytes]) -> bytes:
    """
    >>> damaged(b"abcd", ("flip", 0.5, b"X")), damaged(b"abcd", ("double", 0.5, b""))
    (b'abXd', b'abcdcd')
    """
    kind, share, value = damage
    at = int(share * len(content))
    before, after = content[:at], content[at:]
    return {
        "cut": before,
        "flip": before + value + after[len(value) :],
        "grow": before + value + after,
        "drop": before + after[len(value) :],
        "double": before + after + after,
    }[kind]


@pytest.fixture(scope="module", params=READERS)
def prepared(request, tmp_path_factory) -> tuple[Reader, list[bytes], Path]:
    reader = READERS[request.param]
    folder = tmp_path_factory.mktemp(reader.name)
    return reader, reader.prepare(folder), folder


def test_seeds_are_read(prepared):
    reader, seeds, folder = prepared
    assert any(reader.takes(seed, folder) for seed in seeds)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 25,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_damaged_files_are_taken_or_refused(prepared, data):
    reader, seeds, folder = prepared
    content = data.draw(st.sampled_from(seeds))
    for damage in data.draw(st.lists(damages, min_size=1, max_size=4)):
        content = damaged(content, damage)
    reader.takes(content, folder)


@pytest.mark.parametrize("name", ["config", "options", "checkpoint", "result", "pack"])
def test_brackets_a_hundred_thousand_deep_are_refused(name, tmp_path):
    reader = READERS[name]
    seed = reader.prepare(tmp_path)[0]
    start = {"pack": b"\0", "options": b"size="}.get(name, b"")
    for bracket in (b"[", b'{"a":'):
        nested = start + bracket * 100_000
        if name == "checkpoint":
            header = seed[8 : 8 + int.from_bytes(seed[:8], "little")]
            card = header.replace(b'\\"epoch\\": 1', b'\\"epoch\\": ' + b"[" * 100_000)
            assert card != header
            nested = len(card).to_bytes(8, "little") + card + seed[8 + len(header) :]
        assert not reader.takes(nested, tmp_path)


@pytest.mark.parametrize(
    ("name", "whole", "damaged"),
    [
        ("trained", b"0.5", b"2"),
        ("trained", b"40", b'"40"'),
        ("heard", b'"clip"', b'"clap"'),
        ("result-table", b'"differences"', b'"different"'),
        ("run-config", b"tiny", b"\xff"),
    ],
)
def test_what_once_broke_a_reader_is_refused(
    name: str, whole: bytes, damaged: bytes, tmp_path: Path
) -> None:
    seed = READERS[name].prepare(tmp_path)[0]
    assert whole in seed
    assert READERS[name].takes(seed, tmp_path)
    assert not READERS[name].takes(seed.replace(whole, damaged), tmp_path)


def test_runs_of_the_fuzzer_add_up() -> None:
    counts = {"inputs": 3, "taken": 1, "refused": 2, "seconds": 5, "exit_code": 0, "broken": []}
    found = {"seed": 1, "command": "make fuzz", "readers": {"a": counts | {"exit_code": 1}}}
    first = add_up({}, found)
    second = add_up(first, {**found, "seed": 2, "readers": {"a": counts, "b": counts}})
    assert second["inputs"] == 9
    assert second["readers"]["a"] == counts | {"inputs": 6, "taken": 2, "refused": 4, "seconds": 10}
    assert [one["inputs"] for one in runs_in(second)] == [3, 6]
