"""The reader of IDX files, on small made ones."""

import gzip

import numpy as np
import pytest
from made_data import assert_same, idx_bytes, one_line

from cl_repro.benchmarks.data.mnist import read_idx
from cl_repro.common.errors import UserError


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(7,), (2, 3, 4), (0,)])
def test_idx_round_trip(tmp_path, suffix, shape):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = tmp_path / f"some-ubyte{suffix}"
    path.write_bytes(gzip.compress(idx_bytes(array)) if suffix else idx_bytes(array))
    assert_same([read_idx(path, len(shape))], [array])


LABELS = idx_bytes(np.arange(5))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "magic 0x, expected 0x00000801"),
        (b"<html>", "magic 0x3c68746d, expected 0x00000801"),
        (idx_bytes(np.zeros((1, 2, 2))), "magic 0x00000803, expected 0x00000801"),
        (LABELS[:6], "truncated header: 6 bytes, expected at least 8"),
        (LABELS[:-1], "truncated: 12 bytes, its header promises 13"),
        (LABELS + b"x", "too long: 14 bytes, its header promises 13"),
    ],
)
def test_damaged_idx(tmp_path, content, what):
    path = tmp_path / "labels-ubyte"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_idx(path, 1)
    assert one_line(error) == f"{path}: cannot be read ({what}); move it away and run `make data`"


def flip_checksum(content):  # the trailer of a gzip file: CRC-32, then the length
    return content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]


@pytest.mark.parametrize("spoil", [lambda c: c[:-9], lambda c: LABELS, flip_checksum])
def test_damaged_gz(tmp_path, spoil):
    path = tmp_path / "labels-ubyte.gz"
    path.write_bytes(spoil(gzip.compress(LABELS)))
    with pytest.raises(UserError) as error:
        read_idx(path, 1)
    assert one_line(error).startswith(f"{path}: cannot be read (")
