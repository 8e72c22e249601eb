"""Mutations of any field of any message of a model, found by its descriptor."""

from __future__ import annotations

from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import ModelProto

from tests.fuzzing.mutators.values import a_float, a_name, an_integer

__all__ = ["GENERIC", "messages"]

_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


def messages(root: Message) -> list[Message]:
    """Every message of a model, itself first."""
    found = [root]
    for message in found:
        for field, value in message.ListFields():
            if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
                found += list(value) if isinstance(value, _REPEATED) else [value]
    return found


_REPEATED: Any = (type(ModelProto().opset_import), list)


def change_field(random: Random, model: ModelProto) -> None:
    """A field that is there gets another value, or other elements."""
    found = [(message, field) for message in messages(model) for field, _ in message.ListFields()]
    message, field = random.choice(found)
    value = getattr(message, field.name)
    if _is_repeated(field):
        _change_elements(random, field, value)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _another(random, field, value))


def set_field(random: Random, model: ModelProto) -> None:
    """A field that was absent, or not, appears."""
    message = random.choice(messages(model))
    field = random.choice(message.DESCRIPTOR.fields)
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        target = getattr(message, field.name)
        if _is_repeated(field):
            target.add()
        else:
            target.SetInParent()
    elif _is_repeated(field):
        getattr(message, field.name).append(_another(random, field, None))
    else:
        setattr(message, field.name, _another(random, field, getattr(message, field.name)))


def clear_field(random: Random, model: ModelProto) -> None:
    """A field is gone."""
    message = random.choice([m for m in messages(model) if m.ListFields()])
    message.ClearField(random.choice(message.ListFields())[0].name)


def swap_messages(random: Random, model: ModelProto) -> None:
    """One message becomes a copy of another of its type."""
    found = messages(model)[1:]
    one = random.choice(found)
    same = [m for m in found if m.DESCRIPTOR is one.DESCRIPTOR and m is not one]
    if same:
        copy = type(one)()
        copy.CopyFrom(random.choice(same))
        one.CopyFrom(copy)


def _is_repeated(field: FieldDescriptor) -> bool:
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if repeated is None else repeated)


def _change_elements(random: Random, field: FieldDescriptor, values: Any) -> None:
    if not len(values):
        return
    at = random.randrange(len(values))
    way = random.choice(("delete", "twice", "swap", "change", "empty"))
    if way == "delete":
        del values[at]
    elif way == "empty":
        del values[:]
    elif way == "swap":
        kept = list(values)
        other = random.randrange(len(kept))
        kept[at], kept[other] = kept[other], kept[at]
        kept = (
            [type(v).FromString(v.SerializeToString()) for v in kept]
            if _holds_messages(field)
            else kept
        )
        del values[:]
        values.extend(kept)
    elif way == "twice" or _holds_messages(field):
        values.extend([values[at]])
    else:
        values[at] = _another(random, field, values[at])


def _holds_messages(field: FieldDescriptor) -> bool:
    return field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE


def _another(random: Random, field: FieldDescriptor, value: Any) -> Any:
    """Another value of a field's type."""
    kind = field.cpp_type
    if kind in _FLOATS:
        return a_float(random)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return random.choice(field.enum_type.values).number
    if field.type == FieldDescriptor.TYPE_BYTES:
        data = bytearray(value or b"\0" * 8)
        if data and random.random() < 0.5:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
            return bytes(data)
        return bytes(data[: random.randrange(len(data) + 1)]) + random.randbytes(
            random.randrange(9)
        )
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return a_name(random)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return not value
    return _fitting(kind, an_integer(random))


def _fitting(kind: int, number: int) -> int:
    if kind == FieldDescriptor.CPPTYPE_INT32:
        return (number + 2**31) % 2**32 - 2**31 if random_small(number) else number % 64
    return number % 2**64 if kind == FieldDescriptor.CPPTYPE_UINT64 else number


def random_small(number: int) -> bool:
    """Whether an int32 field gets an edge of int32; element types are mostly small."""
    return number % 3 == 0


GENERIC = {
    "field: changed": change_field,
    "field: set": set_field,
    "field: cleared": clear_field,
    "field: copied": swap_messages,
}
