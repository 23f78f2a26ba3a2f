"""Numbers by key, without the keys."""

from __future__ import annotations

import array
import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class KeyTable:
    """Finds a key's number, with 16 bytes of memory per key.

    Keys are kept as hashes of 64 bits: two of 600,000 keys are taken for one with a probability of one in 10^8.

    Args:
        pairs: Keys with their numbers, from 0 to 2^64 - 1. Of a key's numbers the last one counts. Memory is about 40
            bytes per pair while they are read.

    Attributes:
        numbers: The numbers that count, in no order, dtype uint64.
        repeated: How many pairs have the key of an earlier one.

    Example:
        >>> table = KeyTable([("a", 1), ("b", 2), ("a", 3)])
        >>> table.get("a"), table.get("c"), len(table), table.repeated
        (3, None, 2, 1)
    """

    def __init__(self, pairs: Iterable[tuple[str, int]]) -> None:
        hashes, numbers = array.array("Q"), array.array("Q")
        for key, number in pairs:
            hashes.append(hash_key(key))
            numbers.append(number)
        all_hashes, all_numbers = np.asarray(hashes, np.uint64), np.asarray(numbers, np.uint64)
        # Stable: of a key's numbers the last one stays last, and is the one to keep.
        order = np.argsort(all_hashes, kind="stable")
        all_hashes, all_numbers = all_hashes[order], all_numbers[order]
        last = np.append(all_hashes[1:] != all_hashes[:-1], True)[: len(all_hashes)]
        self._hashes: NDArray[np.uint64] = all_hashes[last]
        self.numbers: NDArray[np.uint64] = all_numbers[last]
        self.repeated = len(order) - len(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def get(self, key: str) -> int | None:
        """The number of a key, or None."""
        wanted = np.uint64(hash_key(key))
        at = int(np.searchsorted(self._hashes, wanted))
        return int(self.numbers[at]) if at < len(self._hashes) and self._hashes[at] == wanted else None


def hash_key(key: str) -> int:
    """The hash of a key: 64 bits that are the same in every process.

    Example:
        >>> hash_key("a") == hash_key("a") != hash_key("b")
        True
    """
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
