"""Checksums and hashes against published values and the plain definitions."""

import hashlib
import io

from data.hashing import checksum, content_hash, hash_64, new_hash, stream_checksum


def test_checksum_has_the_check_value_of_rfc_3720():
    assert checksum(b"123456789") == 0xE3069283


def test_a_stream_is_summed_from_where_it_stands():
    stream = io.BytesIO(b"head123456789")
    stream.seek(4)
    assert stream_checksum(stream) == (9, 0xE3069283)


def test_a_long_stream_is_summed_in_pieces(monkeypatch):
    monkeypatch.setattr("data.hashing.CHUNK_BYTES", 5)
    content = bytes(range(256))
    assert stream_checksum(io.BytesIO(content)) == (256, checksum(content))


def test_a_content_hash_is_blake2b_of_128_bits():
    assert content_hash(b"abc") == hashlib.blake2b(b"abc", digest_size=16).hexdigest()
    continued = new_hash(b"a")
    continued.update(b"bc")
    assert continued.hexdigest() == content_hash(b"abc")


def test_the_short_hash_is_the_big_endian_number():
    digest = hashlib.blake2b("é".encode(), digest_size=8).hexdigest()
    assert hash_64("é") == int(digest, 16)
