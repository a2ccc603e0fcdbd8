"""The Merkle tree of RFC 9162: hashes, the compact frontier of a growing tree, proofs, and their verifiers.

Pure: no I/O and no clock. The ledger calls it; so may anybody who checks a proof. A hash is 32 bytes (SHA-256).
"""

import hashlib
from collections.abc import Callable, Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()

Frontier = tuple[bytes, ...]
# The hash of the complete subtree `index` of `level`: of the leaves from index * 2^level, 2^level of them.
NodeAt = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf (RFC 9162, 2.1.1): a 0x00 in front, so that no leaf can pass for a node."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node (RFC 9162, 2.1.1)."""
    return hashlib.sha256(b"\1" + left + right).digest()


def push(frontier: Frontier, size: int, leaf: bytes) -> tuple[Frontier, tuple[bytes, ...]]:
    """Adds a leaf's hash to the tree of `size` leaves whose complete subtrees' hashes, largest first, are `frontier`.

    Returns the new frontier, and the hashes of the inner nodes that the leaf completed: of level 1, 2, and so on.
    """
    completed = []
    rest = list(frontier)
    node = leaf
    while size & 1:  # each trailing one bit of the size is a complete subtree that now gets its right sibling
        node = node_hash(rest.pop(), node)
        completed.append(node)
        size >>= 1
    return (*rest, node), tuple(completed)


def root_of(frontier: Frontier) -> bytes:
    """The root of the tree of that frontier.

    >>> root_of(()) == EMPTY_ROOT
    True
    """
    if not frontier:
        return EMPTY_ROOT
    root = frontier[-1]
    for node in reversed(frontier[:-1]):
        root = node_hash(node, root)
    return root


def subtree(start: int, end: int, node: NodeAt) -> bytes:
    """The hash of the leaves [start, end), which is a subtree of RFC 9162's recursion: `start` is a multiple of the
    smallest power of two that is at least end - start."""
    count = end - start
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return node(level, start >> level)
    middle = start + _split(count)
    return node_hash(subtree(start, middle, node), subtree(middle, end, node))


def inclusion_path(index: int, size: int, node: NodeAt) -> list[bytes]:
    """The proof that leaf `index` is in the tree of `size` leaves (RFC 9162, 2.1.3.1). ValueError if it is not."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    path = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(subtree(middle, end, node))
            end = middle
        else:
            path.append(subtree(start, middle, node))
            start = middle
    return path[::-1]


def consistency_path(first: int, second: int, node: NodeAt) -> list[bytes]:
    """The proof that the tree of `first` leaves is the beginning of the tree of `second` (RFC 9162, 2.1.4.1).
    ValueError unless 0 < first <= second."""
    if not 0 < first <= second:
        raise ValueError(f"a tree of {first} leaves cannot be the beginning of one of {second}")
    path = []
    start, end, whole = 0, second, True
    while first != end - start:
        middle = start + _split(end - start)
        if first <= middle - start:
            path.append(subtree(middle, end, node))
            end = middle
        else:
            path.append(subtree(start, middle, node))
            first -= middle - start
            start, whole = middle, False
    if not whole:
        path.append(subtree(start, end, node))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows the leaf's hash at `index` in the tree of that size and root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    number, last, result = index, size - 1, leaf
    for part in proof:
        if last == 0:
            return False
        if number & 1 or number == last:
            result = node_hash(part, result)
            while number & 1 == 0 and number != 0:
                number, last = number >> 1, last >> 1
        else:
            result = node_hash(result, part)
        number, last = number >> 1, last >> 1
    return last == 0 and result == root


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the first tree is the beginning of the second (RFC 9162, 2.1.4.2). Nothing has to be
    shown for an empty first tree."""
    if first == second:
        return not proof and first_root == second_root
    if first == 0:
        return not proof and first_root == EMPTY_ROOT
    if not 0 < first < second or not proof:
        return False
    path = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    number, last = first - 1, second - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    before = after = path[0]
    for part in path[1:]:
        if last == 0:
            return False
        if number & 1 or number == last:
            before, after = node_hash(part, before), node_hash(part, after)
            while number & 1 == 0 and number != 0:
                number, last = number >> 1, last >> 1
        else:
            after = node_hash(after, part)
        number, last = number >> 1, last >> 1
    return last == 0 and before == first_root and after == second_root


def _split(count: int) -> int:
    """The largest power of two below `count` (at least 2)."""
    return 1 << ((count - 1).bit_length() - 1)
