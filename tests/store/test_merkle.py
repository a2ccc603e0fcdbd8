"""The Merkle tree against a naive one, against the known answers of Certificate Transparency, and against forgery."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.store import merkle

# The leaves and roots that the implementations of Certificate Transparency share as test vectors.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"
    )
]  # fmt: skip
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\1" + naive_root(leaves[:half]) + naive_root(leaves[half:])).digest()


class Tree:
    """A tree grown by `push`, with the nodes that it completed."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.frontier: merkle.Frontier = ()
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.roots = [merkle.root_of(())]
        for seq, leaf in enumerate(leaves):
            self.nodes[0, seq] = merkle.leaf_hash(leaf)
            self.frontier, completed = merkle.push(self.frontier, seq, self.nodes[0, seq])
            for level, node in enumerate(completed, 1):
                self.nodes[level, ((seq + 1) >> level) - 1] = node
            self.roots.append(merkle.root_of(self.frontier))

    def node(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]


def leaves_of(count: int) -> list[bytes]:
    return [b"leaf %d" % number for number in range(count)]


TREE = Tree(leaves_of(70))


def test_the_roots_are_those_of_certificate_transparency() -> None:
    assert [root.hex() for root in Tree(LEAVES).roots[1:]] == list(ROOTS)


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_a_tree_that_grows_has_the_root_of_one_made_at_once(leaves: list[bytes]) -> None:
    tree = Tree(leaves)
    assert tree.roots == [naive_root(leaves[:size]) for size in range(len(leaves) + 1)]
    assert len(tree.frontier) == len(leaves).bit_count()


def test_every_leaf_of_every_tree_is_proved_in_no_more_hashes_than_the_tree_is_high() -> None:
    for size in range(1, 71):
        for index in range(size):
            proof = merkle.inclusion_path(index, size, TREE.node)
            assert len(proof) <= (size - 1).bit_length()
            assert merkle.verify_inclusion(TREE.node(0, index), index, size, proof, TREE.roots[size])


def test_every_tree_is_proved_to_be_the_beginning_of_every_larger_one() -> None:
    for second in range(1, 71):
        for first in range(1, second + 1):
            proof = merkle.consistency_path(first, second, TREE.node)
            assert merkle.verify_consistency(first, second, TREE.roots[first], TREE.roots[second], proof)
    assert merkle.verify_consistency(0, 9, TREE.roots[0], TREE.roots[9], [])


@st.composite
def broken(draw: st.DrawFn, proof: list[bytes]) -> list[bytes]:
    """The proof with a bit turned, a hash dropped, doubled or two exchanged: another list than it was."""
    assert proof
    at = draw(st.integers(0, len(proof) - 1))
    match draw(st.sampled_from(["flip", "drop", "double", "cut", "swap"])):
        case "flip":
            part = bytearray(proof[at])
            part[draw(st.integers(0, 31))] ^= 1 << draw(st.integers(0, 7))
            return [*proof[:at], bytes(part), *proof[at + 1 :]]
        case "drop":
            return [*proof[:at], *proof[at + 1 :]]
        case "double":
            return [*proof[:at], proof[at], *proof[at:]]
        case "cut":
            return proof[:at]
    other = draw(st.integers(0, len(proof) - 1).filter(lambda other: other != at)) if len(proof) > 1 else at
    swapped = list(proof)
    swapped[at], swapped[other] = proof[other], proof[at]
    return swapped if swapped != proof else []


@given(st.data())
def test_a_broken_proof_proves_nothing(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 70))
    index = data.draw(st.integers(0, size - 1))
    proof = data.draw(broken(merkle.inclusion_path(index, size, TREE.node)))
    assert not merkle.verify_inclusion(TREE.node(0, index), index, size, proof, TREE.roots[size])
    first = data.draw(st.integers(1, size - 1))
    proof = data.draw(broken(merkle.consistency_path(first, size, TREE.node)))
    assert not merkle.verify_consistency(first, size, TREE.roots[first], TREE.roots[size], proof)


@given(st.integers(1, 70), st.data())
def test_a_good_proof_proves_nothing_else(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(-1, 70).filter(lambda other: other != index))
    proof = merkle.inclusion_path(index, size, TREE.node)
    assert not merkle.verify_inclusion(TREE.node(0, index), other, size, proof, TREE.roots[size])
    assert not merkle.verify_inclusion(b"x" * 32, index, size, proof, TREE.roots[size])
    assert not merkle.verify_inclusion(TREE.node(0, index), index, size, proof, b"x" * 32)
    first = data.draw(st.integers(1, size))
    proof = merkle.consistency_path(first, size, TREE.node)
    assert not merkle.verify_consistency(first, size, b"x" * 32, TREE.roots[size], proof)
    assert not merkle.verify_consistency(first, size, TREE.roots[first], b"x" * 32, proof)
    assert not merkle.verify_consistency(size + 1, size, TREE.roots[first], TREE.roots[size], proof)


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_there_is_no_proof_for_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="there is no leaf"):
        merkle.inclusion_path(index, size, TREE.node)


@pytest.mark.parametrize(("first", "second"), [(0, 3), (4, 3), (-1, 3)])
def test_there_is_no_proof_that_a_larger_tree_is_the_beginning(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="cannot be the beginning"):
        merkle.consistency_path(first, second, TREE.node)
