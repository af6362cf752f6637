"""Hypothesis strategies for messages, built from their types.

Whatever the type says may be drawn; whatever `__post_init__` then refuses is drawn again, except
where that would be nearly always, which gets a strategy by hand.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec
from hypothesis import reject
from hypothesis import strategies as st

from dfswire import chunks, inventories, messages, policies

INT_MAX = (1 << 63) - 1
LIST_MAX = 3  # the structure matters, not the length


@functools.cache
def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a message class or annotation."""
    return _of(msgspec.inspect.type_info(kind))


def _of(info: Any) -> st.SearchStrategy[Any]:
    match info:
        case msgspec.inspect.StructType():
            return _BY_HAND[info.cls] if info.cls in _BY_HAND else _struct(info)
        case msgspec.inspect.UnionType():
            return st.one_of([_of(each) for each in info.types])
        case msgspec.inspect.ListType():
            return st.lists(_of(info.item_type), min_size=info.min_length or 0, max_size=LIST_MAX)
        case msgspec.inspect.DictType():
            return st.dictionaries(_of(info.key_type), _of(info.value_type), max_size=LIST_MAX)
        case msgspec.inspect.BytesType():
            return st.binary(min_size=info.min_length or 0, max_size=info.max_length or 40)
        case msgspec.inspect.IntType():
            least = info.ge if info.ge is not None else -INT_MAX
            most = info.lt - 1 if info.lt is not None else info.le
            return st.integers(least, INT_MAX if most is None else most)
        case msgspec.inspect.StrType():
            return st.text(max_size=20)
        case msgspec.inspect.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.EnumType():
            return st.sampled_from(info.cls)
        case msgspec.inspect.LiteralType():
            return st.sampled_from(info.values)
    raise AssertionError(f"no strategy for {info}")


def _struct(info: msgspec.inspect.StructType) -> st.SearchStrategy[Any]:
    fields = {field.name: _of(field.type) for field in info.fields}
    return st.fixed_dictionaries(fields).map(functools.partial(_construct, info.cls))


def _construct(kind: Any, values: dict[str, Any]) -> Any:
    try:
        return kind(**values)
    except ValueError:
        reject()


@st.composite
def _extents(draw: st.DrawFn) -> messages.Extent:
    offset = draw(st.integers(0, messages.FILE_MAX_BYTES - 100))
    if draw(st.booleans()):
        data = draw(st.binary(min_size=1, max_size=100))
        return messages.Extent(offset=offset, length=len(data), data=data)
    return messages.Extent(
        offset=offset,
        length=draw(st.integers(1, messages.FILE_MAX_BYTES - offset)),
        chunk=draw(st.binary(min_size=16, max_size=16)),
        chunk_offset=draw(st.integers(0, INT_MAX)),
    )


@st.composite
def _chunk_writes(draw: st.DrawFn) -> chunks.WriteChunk:
    length = draw(st.integers(1, messages.CHUNK_MAX_BYTES))
    return chunks.WriteChunk(
        chunk=draw(st.binary(min_size=16, max_size=16)),
        length=length,
        checksums=bytes(chunks.CHECKSUM_BYTES * chunks.block_count(length)),
        disk=draw(st.text(max_size=20)),
        chain=draw(st.lists(of_type(messages.Replica), max_size=LIST_MAX)),
        durable=draw(st.booleans()),
    )


@st.composite
def _inventories(draw: st.DrawFn) -> inventories.Inventory:
    ids = draw(st.lists(st.binary(min_size=16, max_size=16), max_size=LIST_MAX))
    return inventories.Inventory(
        server_id=draw(st.text(max_size=20)),
        incarnation=draw(st.integers(0, INT_MAX)),
        disk=draw(st.text(max_size=20)),
        first=bytes(16),
        last=b"\xff" * 16,
        chunks=b"".join(ids),
    )


def _policy_terms() -> st.SearchStrategy[policies.PolicyTerms]:
    blocks_max = messages.CHUNK_MAX_BYTES // messages.BLOCK_SIZE_BYTES
    return st.builds(
        policies.PolicyTerms,
        replicas=st.integers(1, policies.REPLICAS_MAX),
        domain=st.sampled_from(policies.DOMAINS),
        label=st.text(max_size=20),
        chunk_size_bytes=st.integers(0, blocks_max).map(lambda n: n * messages.BLOCK_SIZE_BYTES),
    )


@st.composite
def _changes(draw: st.DrawFn) -> inventories.InventoryChanges:
    ids = st.lists(st.binary(min_size=16, max_size=16), max_size=LIST_MAX).map(b"".join)
    return inventories.InventoryChanges(
        server_id=draw(st.text(max_size=20)),
        incarnation=draw(st.integers(0, INT_MAX)),
        disk=draw(st.text(max_size=20)),
        after=draw(st.integers(0, INT_MAX)),
        gone=draw(ids),
        new=draw(ids),
    )


_BY_HAND: dict[Any, st.SearchStrategy[Any]] = {
    messages.Extent: _extents(),
    chunks.WriteChunk: _chunk_writes(),
    inventories.Inventory: _inventories(),
    inventories.InventoryChanges: _changes(),
    policies.PolicyTerms: _policy_terms(),
}
