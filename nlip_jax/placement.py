"""Where parameters and what belongs to them live: an ordered list of rules, checked before use.

A rule is "REGEX -> STRATEGY"; the first whose regex is found in a parameter's name, such as
"image/encoder/blocks/attention/query/kernel", says how it is split.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Callable

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nlip_jax import sharding
from nlip_jax.errors import UsageError
from nlip_jax.types import PyTree

# Which axis of a parameter is split over which axis of the mesh, and why it is not, if it is not.
Split = tuple[dict[int, str], str]


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule, read.

    Attributes:
      text: as written in the config.
      pattern: searched for in names of parameters.
      strategy: a key of `STRATEGIES`.
      axis: what `tensor` splits, counted from the end.
    """

    text: str
    pattern: re.Pattern
    strategy: str
    axis: int = 0

    @property
    def how(self) -> tuple[str, int]:
        """Two rules with the same one do the same."""
        return self.strategy, self.axis


@dataclasses.dataclass(frozen=True)
class Placed:
    """Where a parameter lives.

    Attributes:
      name: path, joined by "/".
      shape: of the whole.
      nbytes: of the whole.
      rule: the one that says so.
      spec: axes of the mesh.
      device_bytes: what each device holds of it.
      reason: why it is whole on every device; empty for one that is split.
    """

    name: str
    shape: tuple[int, ...]
    nbytes: int
    rule: Rule
    spec: PartitionSpec
    device_bytes: int
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Parameter rules on a mesh.

    Attributes:
      mesh: as of `sharding.make_mesh`.
      rules: in order; see `STRATEGIES`.
      fsdp_min_bytes: parameters below are not split over `fsdp`.
      max_replicated: largest share of the parameters' bytes that may be whole on every device of a
        mesh with `fsdp` or `tensor`.
    """

    mesh: Mesh
    rules: tuple[str, ...] = (".* -> fsdp",)
    fsdp_min_bytes: int = 0
    max_replicated: float = 1.0

    def place(self, params: PyTree) -> tuple[Placed, ...]:
        """Finds the place of every parameter.

        Args:
          params: pytree of ShapeDtypeStructs.

        Raises:
          UsageError: a rule that cannot be read, does nothing, contradicts another or does not fit
            a parameter; or too much would be replicated.
        """
        leaves = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
        rules = [_read(text) for text in self.rules]
        chosen = _choose(rules, list(leaves))
        placed = tuple(self._place(name, leaf, chosen[name]) for name, leaf in leaves.items())
        self._check_replicated(placed)
        return placed

    def shardings(self, state: PyTree, *, params: PyTree) -> PyTree:
        """Where every array of a state lives.

        Parameters go where their rules say. What mirrors a parameter lives beside it, whichever
        part of the state it is in: an optimizer's moment, an average, a momentum copy. It is known
        by a path that ends like the parameter's and by the same shape. The rest is replicated.

        Args:
          state: pytree of ShapeDtypeStructs.
          params: its parameters.

        Returns:
          Pytree of NamedShardings of the structure of `state`.
        """
        known = {
            (item.name, item.shape): NamedSharding(self.mesh, item.spec)
            for item in self.place(params)
        }
        everywhere = sharding.replicated(self.mesh)

        def find(path: tuple, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
            names = _name(path).split("/")
            ends = (("/".join(names[start:]), leaf.shape) for start in range(len(names)))
            return next((known[end] for end in ends if end in known), everywhere)

        return jax.tree_util.tree_map_with_path(find, state)

    def _place(self, name: str, leaf: jax.ShapeDtypeStruct, rule: Rule) -> Placed:
        try:
            axes, reason = STRATEGIES[rule.strategy](leaf, rule, self)
        except ValueError as error:
            raise UsageError(
                f"config.mesh.rules: {rule.text!r} does not fit {name}: {error}"
            ) from error
        spec = PartitionSpec(*[axes.get(i) for i in range(max(axes, default=-1) + 1)])
        shard = NamedSharding(self.mesh, spec).shard_shape(leaf.shape)
        return Placed(
            name=name,
            shape=leaf.shape,
            nbytes=_nbytes(leaf),
            rule=rule,
            spec=spec,
            device_bytes=math.prod(shard) * leaf.dtype.itemsize,
            reason="" if axes else reason,
        )

    def _check_replicated(self, placed: tuple[Placed, ...]) -> None:
        if self.mesh.shape["fsdp"] * self.mesh.shape["tensor"] == 1:
            return
        total = sum(item.nbytes for item in placed)
        reasons = collections.Counter()
        for item in placed:
            reasons[item.reason] += item.nbytes * bool(item.reason)
        share = reasons.total() / total
        if share > self.max_replicated:
            why = "; ".join(
                f"{100 * n / total:.1f} % {why}" for why, n in reasons.most_common() if n
            )
            raise UsageError(
                f"config.mesh.max_replicated={self.max_replicated}: {100 * share:.1f} % of the "
                f"parameters' bytes would be whole on every device ({why}); change "
                "config.mesh.rules or config.mesh.fsdp_min_bytes, or allow more"
            )


def _replicate(leaf: jax.ShapeDtypeStruct, rule: Rule, placement: Placement) -> Split:
    del leaf, rule, placement
    return {}, "by rule"


def _fsdp(
    leaf: jax.ShapeDtypeStruct, rule: Rule, placement: Placement, *, taken: int | None = None
) -> Split:
    """Splits the longest axis that divides; of equals the last, since layers are stacked first."""
    del rule
    parts = placement.mesh.shape["fsdp"]
    if parts == 1:
        return {}, "because mesh.fsdp=1"
    if _nbytes(leaf) < placement.fsdp_min_bytes:
        return {}, f"below mesh.fsdp_min_bytes={placement.fsdp_min_bytes:,}"
    free = [i for i, n in enumerate(leaf.shape) if n % parts == 0 and i != taken]
    if not free:
        return {}, f"without an axis that mesh.fsdp={parts} divides"
    return {max(free, key=lambda i: (leaf.shape[i], i)): "fsdp"}, ""


def _tensor(leaf: jax.ShapeDtypeStruct, rule: Rule, placement: Placement) -> Split:
    """Splits the rule's axis over `tensor`, and another one as `_fsdp` does."""
    parts, axis = placement.mesh.shape["tensor"], leaf.ndim + rule.axis
    if axis < 0:
        raise ValueError(f"its shape {leaf.shape} has no axis {rule.axis}")
    if leaf.shape[axis] % parts:
        raise ValueError(
            f"axis {rule.axis} of its shape {leaf.shape} is not divisible by "
            f"config.mesh.tensor={parts}"
        )
    if parts == 1:
        return _fsdp(leaf, rule, placement)
    return {axis: "tensor"} | _fsdp(leaf, rule, placement, taken=axis)[0], ""


STRATEGIES: dict[str, Callable[[jax.ShapeDtypeStruct, Rule, Placement], Split]] = {
    "replicate": _replicate,
    "fsdp": _fsdp,
    "tensor": _tensor,
}


def _read(text: str) -> Rule:
    pattern, arrow, strategy = (part.strip() for part in str(text).rpartition("->"))
    if not arrow or not pattern:
        raise UsageError(f"config.mesh.rules: {text!r} is not of the form 'REGEX -> STRATEGY'")
    if not re.fullmatch(r"replicate|fsdp|tensor:-[1-9]", strategy):
        raise UsageError(
            f"config.mesh.rules: {text!r}: the strategy {strategy!r} is not one of replicate, "
            "fsdp, tensor:AXIS (AXIS counted from the end: -1, -2, ...)"
        )
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"config.mesh.rules: {text!r} is no valid regex: {error}") from error
    name, _, axis = strategy.partition(":")
    return Rule(text=text, pattern=compiled, strategy=name, axis=int(axis or 0))


def _choose(rules: list[Rule], names: list[str]) -> dict[str, Rule]:
    """The rule of every parameter; refuses lists that do not mean what they seem to say."""
    matches = [{name for name in names if rule.pattern.search(name)} for rule in rules]
    chosen: dict[str, Rule] = {}
    for i, (rule, found) in enumerate(zip(rules, matches, strict=True)):
        if not found:
            raise UsageError(
                f"config.mesh.rules: {rule.text!r} matches no parameter; names are such as "
                f"{max(names, key=len)}"
            )
        if found <= chosen.keys():
            raise UsageError(
                f"config.mesh.rules: {rule.text!r} has no effect: earlier rules take all that it "
                f"matches, such as {min(found)} by {chosen[min(found)].text!r}; remove it, or put "
                "it before them"
            )
        for earlier, others in zip(rules[:i], matches[:i], strict=True):
            if earlier.how != rule.how and others & found and others - found:
                raise UsageError(
                    f"config.mesh.rules: {earlier.text!r} and {rule.text!r} both match "
                    f"{min(others & found)}, and {min(others - found)} only the first: an "
                    "exception must be narrower than the rule that it excepts from"
                )
        chosen = dict.fromkeys(found, rule) | chosen
    if missing := [name for name in names if name not in chosen]:
        raise UsageError(
            f"config.mesh.rules: no rule matches {missing[0]}; end the list with '.* -> fsdp' or "
            "'.* -> replicate'"
        )
    return chosen


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _nbytes(leaf: jax.ShapeDtypeStruct) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize
