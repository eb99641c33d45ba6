"""Protobuf messages that nobody would send: arbitrary ones by their descriptors, and good ones with a fault in them."""

import math
from random import Random

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

NUMBERS = (0, 1, 2, 7, 2**31 - 1, 2**32 - 1, 2**53 + 1, 2**63 - 1, 2**64 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-320, 1e300, math.inf, -math.inf, math.nan)
TEXTS = ("", "\0", "x", "north", "A" * 300, "\N{PILE OF POO}", "../../etc/passwd", "'; DROP TABLE runs; --", "0" * 64)
BYTES = (b"", b"\0", b"0" * 31, b"0" * 32, b"\xff" * 32, b"0" * 64, b"0" * 1000)
BITS = {FieldDescriptor.CPPTYPE_UINT32: 32, FieldDescriptor.CPPTYPE_UINT64: 64, FieldDescriptor.CPPTYPE_INT32: 31}


@st.composite
def messages(draw, kind: type[Message]) -> Message:
    """Any message of a kind, as its receiver gets it: some fields are set, to what their type can hold."""
    made = kind()
    for field in kind.DESCRIPTOR.fields:
        if draw(st.booleans()):
            _set(
                made, field, [draw(_values(field)) for _ in range(draw(st.integers(0, 3)) if field.is_repeated else 1)]
            )
    return kind.FromString(made.SerializeToString())


def _values(field: FieldDescriptor) -> st.SearchStrategy:  # noqa: PLR0911
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return messages(GetMessageClass(field.message_type))
    if field.cpp_type in BITS:
        return st.integers(0, 2 ** BITS[field.cpp_type] - 1)
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return st.floats()
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return st.integers(-1, 40)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.sampled_from(BYTES) | st.binary(max_size=64)
    return st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


def _set(message: Message, field: FieldDescriptor, values: list) -> None:
    if _is_map(field):
        for entry in values:
            if field.message_type.fields_by_name["value"].message_type:
                getattr(message, field.name)[entry.key].CopyFrom(entry.value)
            else:
                getattr(message, field.name)[entry.key] = entry.value
    elif field.is_repeated:
        getattr(message, field.name).extend(values)
    elif field.message_type:
        getattr(message, field.name).CopyFrom(values[0])
    else:
        setattr(message, field.name, values[0])


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def faulty(good: Message, random: Random) -> Message:
    """A good message with one to three faults in its fields or its bytes; it may turn out to be good still."""
    made = type(good).FromString(good.SerializeToString())
    for _ in range(random.randint(1, 3)):
        if random.random() < 0.8:
            _spoil(made, random)
        else:
            made = _scrambled(made, random)
    return made


def _spoil(message: Message, random: Random) -> None:
    """Changes one field, here or further down."""
    field = random.choice(message.DESCRIPTOR.fields or [None])
    if field is None:
        return
    if field.message_type is None or _is_map(field):
        _replace(message, field, random)
    elif field.is_repeated:
        inner = getattr(message, field.name)
        if inner and random.random() < 0.7:
            _spoil(random.choice(inner), random)
        elif inner and random.random() < 0.5:
            del inner[random.randrange(len(inner)) :]
        else:
            inner.add()
    elif random.random() < 0.1:
        message.ClearField(field.name)
    else:
        _spoil(getattr(message, field.name), random)


def _replace(message: Message, field: FieldDescriptor, random: Random) -> None:
    if _is_map(field):
        value = field.message_type.fields_by_name["value"]
        if value.message_type is None:
            getattr(message, field.name)[random.choice(TEXTS)] = _scalar(value, random)
    elif field.is_repeated:
        values = list(getattr(message, field.name))
        values[random.randrange(len(values) + 1) :] = [_scalar(field, random) for _ in range(random.randint(0, 3))]
        message.ClearField(field.name)
        getattr(message, field.name).extend(values)
    else:
        setattr(message, field.name, _scalar(field, random))


def _scalar(field: FieldDescriptor, random: Random):
    if field.cpp_type in BITS:
        return min(random.choice(NUMBERS), 2 ** BITS[field.cpp_type] - 1)
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return random.choice(FLOATS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return random.randint(-1, 40)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    return random.choice(BYTES if field.type == FieldDescriptor.TYPE_BYTES else TEXTS)


def _scrambled(message: Message, random: Random) -> Message:
    raw = scrambled(message.SerializeToString(), random)
    try:
        return type(message).FromString(raw)
    except DecodeError:
        return message


def scrambled(raw: bytes, random: Random) -> bytes:
    """The bytes with a few of them changed, cut out or repeated."""
    found = bytearray(raw)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(found) + 1)
        match random.randrange(3):
            case 0:
                found[at : at + 1] = random.randbytes(1)
            case 1:
                del found[at : at + random.randint(1, 8)]
            case 2:
                found[at:at] = found[at : at + random.randint(1, 8)]
    return bytes(found)
