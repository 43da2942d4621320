"""A strict reader of pprof's profile.proto in gzip, written from the format's description, for what tests ask.

github.com/google/pprof, proto/profile.proto, and its rules: the first string is empty, identities are not zero and
unique, whatever is referred to is there, every sample has as many values as there are sample types.
"""

from __future__ import annotations

import gzip
from collections import namedtuple

Frame = namedtuple("Frame", "function file line address")
Sample = namedtuple("Sample", "stack values")        # stack: innermost first; values: by sample type
Profile = namedtuple("Profile", "types samples period period_type default mappings comments functions default_string")


def _message(data, repeated=()):
    """field -> value, or a list of values for repeated fields; ints for varints, bytes else."""
    found, at = {}, 0

    def varint():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = data[at]
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                if shift > 70:
                    raise ValueError("a varint of more than ten bytes")
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            value = varint()
        elif key & 7 == 2:
            length = varint()
            if at + length > len(data):
                raise ValueError("a field leaves its message")
            value, at = data[at:at + length], at + length
        else:
            raise ValueError(f"wire type {key & 7}")
        if key >> 3 in repeated:
            found.setdefault(key >> 3, []).append(value)
        elif key >> 3 in found:
            raise ValueError(f"field {key >> 3} twice")
        else:
            found[key >> 3] = value
    return found


def _packed(data):
    values, value, shift = [], 0, 0
    for byte in data:
        value, shift = value | (byte & 127) << shift, shift + 7
        if byte < 128:
            values.append(value)
            value, shift = 0, 0
    if shift:
        raise ValueError("a packed field ends within a number")
    return values


def _by_identity(messages):
    found = {}
    for message in messages:
        if not message.get(1) or message[1] in found:
            raise ValueError("an identity is zero or there twice")
        found[message[1]] = message
    return found


def read(path):
    """The profile in a file; ValueError for whatever is not as it should be."""
    data = gzip.decompress(path.read_bytes())
    top = _message(data, repeated=(1, 2, 3, 4, 5, 6, 13))
    strings = [text.decode("utf-8") for text in top[6]]
    if strings[0] != "":
        raise ValueError("the first string is not empty")

    def value_type(message):
        fields = _message(message)
        return strings[fields[1]], strings[fields[2]]

    types = [value_type(message) for message in top[1]]
    mappings = _by_identity(map(_message, top.get(3, [])))
    functions = _by_identity(map(_message, top.get(5, [])))
    locations = _by_identity([_message(one) for one in top.get(4, [])])
    for mapping in mappings.values():
        if mapping[2] >= mapping[3]:
            raise ValueError("an empty mapping")
    frames = {}
    for identity, location in locations.items():
        line = _message(location[4])
        function = functions[line[1]]
        if location.get(2) and not mappings[location[2]][2] <= location[3] < mappings[location[2]][3]:
            raise ValueError("an address outside its mapping")
        frames[identity] = Frame(strings[function[2]], strings[function.get(4, 0)], line.get(2, 0), location.get(3, 0))
        if not frames[identity].function:
            raise ValueError("a function without a name")
    samples = []
    for one in top.get(2, []):
        message = _message(one)
        values = _packed(message[2])
        if len(values) != len(types):
            raise ValueError("values and sample types differ in number")
        samples.append(Sample([frames[number] for number in _packed(message.get(1, b""))],
                              {kind: value for (kind, _), value in zip(types, values)}))
    files = [(strings[one[5]], strings[one.get(6, 0)]) for one in mappings.values()]
    return Profile(types, samples, top[12], value_type(top[11]), strings[top[14]], files,
                   [strings[one] for one in top.get(13, [])], {strings[one[2]] for one in functions.values()}, top[14])


def total(profile, kind, *names):
    """The sum of one sample type over the samples whose stack has all of the functions."""
    return sum(sample.values[kind] for sample in profile.samples
               if set(names) <= {frame.function for frame in sample.stack})
