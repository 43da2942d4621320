"""As much of pprof's profile.proto as a table of the largest sites needs."""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass
from typing import Iterator, Union


class ProfileError(ValueError):
    """A file that is no pprof profile."""


@dataclass(frozen=True)
class Site:
    """A stack, innermost function first, and its values by sample type."""

    stack: tuple[str, ...]
    values: tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    types: tuple[tuple[str, str], ...]  # name and unit: ("inuse_space", "bytes")
    sites: tuple[Site, ...]

    def largest(self, kind: int, most: int = 20) -> list[Site]:
        """Sites by their value of that type, the largest first, those of one stack taken together."""
        sums: dict[tuple[str, ...], list[int]] = {}
        for site in self.sites:
            row = sums.setdefault(site.stack, [0] * len(self.types))
            row[:] = [a + b for a, b in zip(row, site.values)]
        found = [Site(stack, tuple(values)) for stack, values in sums.items()]
        return sorted(found, key=lambda site: -site.values[kind])[:most]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, Union[int, bytes]]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value: Union[int, bytes]
        if key & 7 == 0:
            value, at = _varint(data, at)
        elif key & 7 == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
            if len(value) != length:
                raise ProfileError("cut off")
        else:
            width = {1: 8, 5: 4}.get(key & 7)
            if width is None:
                raise ProfileError(f"wire type {key & 7}")
            value, at = data[at : at + width], at + width
        yield key >> 3, value


def _message(data: Union[int, bytes]) -> dict[int, list[Union[int, bytes]]]:
    if not isinstance(data, bytes):
        raise ProfileError("a number where a message belongs")
    found: dict[int, list[Union[int, bytes]]] = {}
    for number, value in _fields(data):
        found.setdefault(number, []).append(value)
    return found


def _numbers(values: list[Union[int, bytes]]) -> list[int]:
    """Of a repeated field, packed or not; signed, 64 bits."""
    found = []
    for value in values:
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            found.append(number)
    return [number - 2**64 if number >> 63 else number for number in found]


def _one(message: dict[int, list[Union[int, bytes]]], number: int) -> int:
    value = message.get(number, [0])[-1]
    return value if isinstance(value, int) else 0


def _decode(data: bytes) -> Profile:
    top = _message(data)
    strings = [value.decode("utf-8", "replace") for value in top.get(6, []) if isinstance(value, bytes)]
    functions = {_one(function, 1): function for function in map(_message, top.get(5, []))}
    frames: dict[int, list[str]] = {}
    for location in map(_message, top.get(4, [])):
        names = []
        for line in map(_message, location.get(4, [])):
            function = functions.get(_one(line, 1), {})
            name, file = strings[_one(function, 2)], os.path.basename(strings[_one(function, 4)])
            number = _one(line, 2)
            names.append(f"{name} ({file}{f':{number}' if number else ''})" if file else name)
        frames[_one(location, 1)] = names or [f"{_one(location, 3):#x}"]
    types = tuple((strings[_one(kind, 1)], strings[_one(kind, 2)]) for kind in map(_message, top.get(1, [])))
    sites = []
    for sample in map(_message, top.get(2, [])):
        stack = tuple(name for number in _numbers(sample.get(1, [])) for name in frames.get(number, ["?"]))
        values = tuple(_numbers(sample.get(2, [])))
        if len(values) != len(types):
            raise ProfileError("a sample with other values than its types")
        sites.append(Site(stack, values))
    return Profile(types, tuple(sites))


def read(path: Union[str, os.PathLike[str]]) -> Profile:
    """A profile, compressed or not.  ProfileError when it is none, OSError when it cannot be read."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        profile = _decode(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except (IndexError, ProfileError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ProfileError(f"{os.fspath(path)} is no pprof profile: {error}") from error
    if not profile.types:
        raise ProfileError(f"{os.fspath(path)} is no pprof profile: it has no sample types")
    return profile
