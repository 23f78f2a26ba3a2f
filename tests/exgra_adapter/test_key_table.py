"""Numbers by key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exgra_adapter.key_table import KeyTable


@given(st.lists(st.tuples(st.text("ab\ud800", max_size=2), st.integers(0, 2**64 - 1))))
def test_a_table_is_a_dictionary(pairs: list[tuple[str, int]]) -> None:
    table, expected = KeyTable(pairs), dict(pairs)
    assert len(table) == len(expected)
    assert table.repeated == len(pairs) - len(expected)
    assert sorted(map(int, table.numbers)) == sorted(expected.values())
    assert all(table.get(key) == number for key, number in expected.items())
    assert table.get("none of them") is None
