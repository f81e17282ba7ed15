"""Philox4x32-10: random words that are a pure function of a key and a position.

A counter-based generator carries no state: word i is a hash of (key, i). So a matrix, or any block of its
rows, is the same in whatever order, process or thread it is drawn. Integer arithmetic gives the same bits on
every machine.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011 (Random123).
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

VERSION = 1  # of the map (seed, name, shape, family) → words; raise it whenever the map changes
ROUNDS = 10
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)  # added to the key after each round
Words = npt.NDArray[np.uint32]
MASK = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)
HALVES_PER_BLOCK = 8  # a block is 4 words of 32 bits
CHUNK = 8192  # blocks computed at once, so that the arrays stay in the processor's cache


def key_of(*parts: object) -> int:
    """The 64-bit key of a stream: the first 8 bytes, little-endian, of SHA-256 over VERSION and the parts."""
    text = "/".join(str(part) for part in ("lottalora", VERSION, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def philox(key: int, first: int, blocks: int) -> Words:
    """Blocks first … first + blocks − 1 of the stream: (blocks, 4) words of 32 bits, little-endian."""
    counter = np.arange(first, first + blocks, dtype=np.uint64)
    zero = np.zeros(blocks, np.uint64)
    return _rounds([counter & MASK, counter >> SHIFT, zero, zero.copy()], key)


def _rounds(c: list[npt.NDArray[np.uint64]], key: int) -> Words:
    """Ten rounds on the counters c[0] … c[3], each (blocks,) uint64 below 2³², overwritten."""
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    c0, c1, c2, c3 = c
    for _ in range(ROUNDS):
        c0 *= MULTIPLIERS[0]  # high half: the next c2; low half: the next c3
        c2 *= MULTIPLIERS[1]  # high half: the next c0; low half: the next c1
        c1 ^= c2 >> SHIFT
        c1 ^= np.uint64(k0)
        c3 ^= c0 >> SHIFT
        c3 ^= np.uint64(k1)
        c2 &= MASK
        c0 &= MASK
        c0, c1, c2, c3 = c1, c2, c3, c0
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    words = np.empty((c0.size, 4), "<u4")
    for i, column in enumerate((c0, c1, c2, c3)):
        words[:, i] = column
    return words


def halves(key: int, start: int, stop: int) -> Iterator[npt.NDArray[np.uint16]]:
    """Values start … stop − 1 of the stream, uniform on 0 … 65,535, in pieces of at most 65,536.

    Value i is 16 bits of block i // 8: words in order, the low half of each word before its high half.
    """
    for first in range(start // HALVES_PER_BLOCK, -(-stop // HALVES_PER_BLOCK), CHUNK):
        blocks = min(CHUNK, -(-stop // HALVES_PER_BLOCK) - first)
        values = philox(key, first, blocks).reshape(-1).view("<u2")  # (8 · blocks,)
        offset = first * HALVES_PER_BLOCK
        yield values[max(start - offset, 0) : stop - offset]
