"""Check that decision trees from a file stay inside themselves, so that their types can be trusted.

Called by `sklearn` for skops files. skops does not trust these two types, because scikit-learn follows their
node numbers without looking, and a crafted file could make it read any memory. Their content is all there is to fear,
so it is checked here, before the first prediction: children lie behind their parent and in the tree, features in the
row.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

CHECKED_TYPES = frozenset(
    {
        "sklearn.tree._tree.Tree",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    }
)
_NO_LIMIT = np.iinfo(np.intp).max
_LEAF = -1


def check_trees(estimator: Any) -> None:
    """Raises ValueError when any tree in the estimator points outside of itself, or of the rows it is fed."""
    for tree, width in _find_trees(estimator):
        if type(tree).__name__ == "Tree":
            _check_tree(tree, width)
        else:
            _check_predictor(tree, width)


def _find_trees(estimator: Any) -> Iterator[tuple[Any, int]]:
    """Every tree that can be reached, with the number of features of the estimators around it (the least of them)."""
    pending: list[tuple[Any, int]] = [(estimator, _NO_LIMIT)]
    seen: dict[int, Any] = {}
    while pending:
        thing, width = pending.pop()
        kind = type(thing)
        if f"{kind.__module__}.{kind.__qualname__}" in CHECKED_TYPES:
            yield thing, width
            continue
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, dict):
            pending += [(value, width) for value in thing.values()]
        elif isinstance(thing, list | tuple | set | frozenset):
            pending += [(value, width) for value in thing]
        elif isinstance(thing, np.ndarray):
            if thing.dtype.kind == "O":
                pending += [(value, width) for value in thing.ravel()]
        elif hasattr(thing, "__dict__"):
            parts = vars(thing)
            # The steps of a pipeline change the width of what they pass on, so that each answers for itself.
            inner = _NO_LIMIT if "steps" in parts else min(width, int(parts.get("n_features_in_", width)))
            pending += [(value, inner) for value in parts.values()]


def _check_tree(tree: Any, width: int) -> None:
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    inner = left != _LEAF
    _check_links(np.flatnonzero(inner), (left[inner], right[inner]), tree.node_count)
    _check_features(feature[inner], min(width, tree.n_features))
    if tree.value.size < tree.node_count:
        raise ValueError("a tree has fewer values than nodes")


def _check_predictor(predictor: Any, width: int) -> None:
    nodes = predictor.nodes
    inner = nodes["is_leaf"] == 0
    _check_links(np.flatnonzero(inner), (nodes["left"][inner], nodes["right"][inner]), len(nodes))
    _check_features(nodes["feature_idx"][inner], width)
    categorical = inner & (nodes["is_categorical"] != 0)
    known = min(len(predictor.raw_left_cat_bitsets), len(predictor.binned_left_cat_bitsets))
    if np.any(nodes["bitset_idx"][categorical] >= known):
        raise ValueError("a tree refers to a set of categories that it does not have")


def _check_links(parents: Any, children: tuple[Any, Any], count: int) -> None:
    if not count:
        raise ValueError("a tree has no nodes")
    for child in children:
        # Behind its parent: so no walk can go in circles.
        if np.any(child <= parents) or np.any(child >= count):
            raise ValueError("a tree refers to a node that is not below its parent")


def _check_features(features: Any, width: int) -> None:
    if np.any(features < 0) or np.any(features >= width):
        raise ValueError("a tree refers to a feature that the model does not have")
