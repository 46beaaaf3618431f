"""The first numbers of many random streams at once: those of `np.random.default_rng(key)`, bit for bit, for each key.

numpy makes one generator a key, which takes about 20 microseconds of Python. Here the same arithmetic is done on arrays
of keys. Its two parts are numpy's SeedSequence, which hashes a key (O'Neill 2015, "Developing a seed_seq alternative"),
and PCG64, a linear congruential generator of 128 bits whose output is folded to 64 (O'Neill 2014, "PCG: a family of
simple fast space-efficient statistically good algorithms for random number generation", XSL-RR). numpy promises that
both stay as they are (NEP 19); tests/data/test_streams.py compares them with numpy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["LOW", "Streams"]

LOW = np.uint64(2**32 - 1)
"""The lower half of a word of 64 bits."""

# The constants of SeedSequence: what a hash starts from and is multiplied by, when a key is taken in (A) and when the
# state is given out (B), and the factors by which two words are mixed.
POOL = 4
INIT_A, MULT_A, INIT_B, MULT_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
MIX_LEFT, MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
MULTIPLIER = 2549297995355413924 << 64 | 4865540595714422341
"""PCG64's factor: from one state to the next."""

Wide = tuple[NDArray[np.uint64], NDArray[np.uint64]]
"""Numbers of 128 bits, as their upper and their lower half."""


class Streams:
    """n random streams. That of number i is `np.random.default_rng((*prefix, last[i]))`.

    prefix: what all keys begin with, whole numbers from 0 on. last: (n,) int64, from 0 to 2**32 - 1. Raises ValueError
    for another `last`. Nothing is changed after it is made.
    """

    def __init__(self, prefix: Sequence[int], last: NDArray[np.int64]) -> None:
        if len(last) and not 0 <= int(last.min()) <= int(last.max()) < 2**32:
            raise ValueError(f"the last number of a key is from 0 to 2**32 - 1, but got {last.min()} to {last.max()}")
        self.prefix, self.last = tuple(prefix), last

    def __len__(self) -> int:
        return len(self.last)

    def part(self, places: NDArray[np.int64]) -> Streams:
        """The streams at `places` (m,) int64."""
        return Streams(self.prefix, self.last[places])

    def generator(self, place: int) -> np.random.Generator:
        """The stream at one place, from its beginning, as numpy's generator."""
        return np.random.default_rng((*self.prefix, int(self.last[place])))

    def words(self, count: int) -> NDArray[np.uint64]:
        """The first `count` words of 64 bits of each stream, (n, count) uint64."""
        start, step = _seeded([word for number in self.prefix for word in _words_of(number)], self.last)
        of_start, of_step = _jumps(count)
        upper, lower = _sum(_product(start, of_start), _product(step, of_step))
        turns = upper >> np.uint64(58)
        folded = upper ^ lower
        return (folded >> turns) | (folded << ((np.uint64(64) - turns) & np.uint64(63)))


def _words_of(number: int) -> list[int]:
    """A whole number as words of 32 bits, the lowest first. 0 is one word."""
    words = [number & 0xFFFFFFFF]
    while number := number >> 32:
        words.append(number & 0xFFFFFFFF)
    return words


def _seeded(prefix: Sequence[int], last: NDArray[np.int64]) -> tuple[Wide, Wide]:
    """What PCG64 is seeded with: the start and the step (twice the number, plus 1), each (n, 1) of 128 bits."""
    entropy = np.empty((len(prefix) + 1, len(last)), np.uint32)
    entropy[:-1] = np.array(prefix, np.uint32)[:, None]
    entropy[-1] = last
    pool = _pool(entropy)
    constants = _powers(INIT_B, MULT_B, 2 * POOL)
    state = np.concatenate([pool, pool]) ^ constants[:-1]
    state *= constants[1:]
    state ^= state >> np.uint32(16)
    wide = state[0::2] | state[1::2].astype(np.uint64) << np.uint64(32)
    upper, lower, step_upper, step_lower = wide[:, :, None]
    one = np.uint64(1)
    return (upper, lower), (step_upper << one | step_lower >> np.uint64(63), step_lower << one | one)


def _pool(entropy: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """SeedSequence's pool (4, n) uint32 of keys (words, n) uint32."""
    words, keys = entropy.shape
    # A hash of a word takes the next two constants. The pool takes 4 hashes, its mixing 3 for each word of it, and each
    # further word of the key 4.
    constants = _powers(INIT_A, MULT_A, POOL + POOL * (POOL - 1) + POOL * max(0, words - POOL))
    pool = np.zeros((POOL, keys), np.uint32)
    pool[:words] = entropy[:POOL]
    pool = _hashed(pool, constants[: POOL + 1])
    at = POOL
    for source in range(POOL):
        others = [place for place in range(POOL) if place != source]
        pool[others] = _mixed(pool[others], _hashed(pool[source], constants[at : at + POOL]))
        at += POOL - 1
    for word in entropy[POOL:]:
        pool = _mixed(pool, _hashed(word, constants[at : at + POOL + 1]))
        at += POOL
    return pool


def _hashed(words: NDArray[np.uint32], constants: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Hashes (c, n) of words (c, n) or (n,). constants: (c + 1, 1), of which each hash takes two neighbours."""
    hashed = words ^ constants[:-1]
    hashed *= constants[1:]
    return hashed ^ hashed >> np.uint32(16)


def _mixed(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> NDArray[np.uint32]:
    mixed = MIX_LEFT * one - MIX_RIGHT * other
    return mixed ^ mixed >> np.uint32(16)


@cache
def _powers(first: int, factor: int, count: int) -> NDArray[np.uint32]:
    """`first` times the powers 0..count of `factor`, modulo 2**32: (count + 1, 1) uint32."""
    return np.array([[first * pow(factor, power, 2**32) % 2**32] for power in range(count + 1)], np.uint32)


@cache
def _jumps(count: int) -> tuple[Wide, Wide]:
    """The factors (count,) of 128 bits of a start and of a step that give the states behind words 1..count.

    PCG64 is seeded by: state = step, plus start, one advance. An advance is: state * MULTIPLIER + step. So before word
    k, the start was multiplied k + 1 times, and the step was added k + 2 times.
    """
    power, total, of_start, of_step = 1, 1, [], []
    for turn in range(1, count + 2):
        power = power * MULTIPLIER % 2**128
        total = (total + power) % 2**128
        if turn > 1:
            of_start.append(power)
            of_step.append(total)
    return _wide(of_start), _wide(of_step)


def _wide(numbers: Sequence[int]) -> Wide:
    return (
        np.array([number >> 64 for number in numbers], np.uint64),
        np.array([number & (2**64 - 1) for number in numbers], np.uint64),
    )


def _product(one: Wide, other: Wide) -> Wide:
    """The products of numbers of 128 bits, modulo 2**128."""
    half = np.uint64(32)
    (upper, lower), (other_upper, other_lower) = one, other
    low, high = lower & LOW, lower >> half
    other_low, other_high = other_lower & LOW, other_lower >> half
    first = high * other_low
    first += (low * other_low) >> half
    second = low * other_high
    second += first & LOW
    top = high * other_high
    top += first >> half
    top += second >> half
    top += upper * other_lower
    top += lower * other_upper
    return top, lower * other_lower


def _sum(one: Wide, other: Wide) -> Wide:
    """The sums of numbers of 128 bits, modulo 2**128."""
    lower = one[1] + other[1]
    return one[0] + other[0] + (lower < one[1]), lower
