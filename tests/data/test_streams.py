"""Many streams at once: numpy's own numbers, for keys of every length."""

from __future__ import annotations

import numpy as np
import pytest

from ssd.data.streams import Streams

LAST = np.array([0, 1, 255, 2**31, 2**32 - 1, *np.random.default_rng(1).integers(0, 2**32, 40)])


@pytest.mark.parametrize("prefix", [(), (7,), (2, 0, 1), (2, 2**32 - 1, 12), (2, 2**70 + 5, 0, 3), (1, 2**32, 2**32)])
def test_the_words_are_numpys(prefix: tuple[int, ...]) -> None:
    """Keys shorter and longer than the four words of SeedSequence's pool, with numbers of one to three words."""
    streams = Streams(prefix, LAST)
    words = streams.words(40)
    assert (words.shape, words.dtype, len(streams)) == ((len(LAST), 40), np.uint64, len(LAST))
    for place, last in enumerate(LAST.tolist()):
        raw = np.random.default_rng((*prefix, last)).bit_generator.random_raw(40)
        np.testing.assert_array_equal(words[place], raw)
        assert streams.generator(place).bit_generator.random_raw() == raw[0]


def test_fewer_words_are_the_first() -> None:
    streams = Streams((2, 3), LAST)
    np.testing.assert_array_equal(streams.words(3), streams.words(40)[:, :3])


def test_a_part_of_the_streams() -> None:
    streams, places = Streams((2, 3), LAST), np.array([4, 0, 7])
    np.testing.assert_array_equal(streams.part(places).words(5), streams.words(5)[places])


def test_no_stream_has_no_words() -> None:
    assert Streams((2, 3), LAST[:0]).words(5).shape == (0, 5)


@pytest.mark.parametrize("wrong", [-1, 2**32])
def test_a_key_of_another_length_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=str(wrong)):
        Streams((2,), np.array([0, wrong]))
