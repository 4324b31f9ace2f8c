r"""Solutions that run through the whole numbers: `x = 2k\pi + \pi/3, k \in \mathbb{Z}`, with braces or without."""

from dataclasses import dataclass

from rewards.grading.compare.evaluate import UndefinedError, context, numeric
from rewards.grading.compare.reshape import named
from rewards.grading.parse.tree import Node, TooBigError, is_scalar, number, symbols

_WHOLE_NUMBERS = frozenset({"Z", "mathbb Z"})


@dataclass(frozen=True)
class Family:
    """The values of `terms` for every `variable` in `domain`; `domain` is "" where the text does not say it."""

    terms: tuple[Node, ...]
    variable: str
    domain: str


def family(node: Node) -> Family | None:
    """The family that a list or set says whose last member is `k ∈ Z`; None: it says none."""
    if node.op not in ("bare", "set") or len(node.args) < 2:
        return None
    *terms, condition = node.args
    if condition.op != "relation" or condition.name != "in" or any(arg.op != "symbol" for arg in condition.args):
        return None
    variable, domain = (arg.name for arg in condition.args)
    values = tuple(named(term).value for term in terms)
    if not all(is_scalar(value) and variable in symbols(value) for value in values):
        return None
    return Family(values, variable, "mathbb Z" if domain in _WHOLE_NUMBERS else domain)


def undeclared(node: Node) -> Family | None:
    """The family of a formula in one variable, of which nothing is said."""
    value = named(node).value
    names = symbols(value)
    return Family((value,), next(iter(names)), "") if is_scalar(value) and len(names) == 1 else None


def renamed(family: Family, variable: str) -> tuple[Node, ...]:
    """The terms with `variable` in place of the family's own."""
    return tuple(_with(term, family.variable, Node("symbol", name=variable)) for term in family.terms)


def same_progression(a: Node, b: Node, variable: str) -> bool:
    """Do two linear terms run through the same values as the variable runs through all whole numbers?

    False too where they are not linear, or have other symbols.
    """
    try:
        ctx = context()
        (start, step), (other_start, other_step) = (_line(term, variable) for term in (a, b))
        if step == 0 or abs(abs(step) - abs(other_step)) > abs(step) * ctx.mpf(10) ** -30:
            return False
        shift = (start - other_start) / step
        return abs(shift - ctx.nint(ctx.re(shift))) < ctx.mpf(10) ** -25
    except (UndefinedError, TooBigError):
        return False


def _line(term: Node, variable: str) -> tuple:
    """The value at 0 and the step of a linear term. UndefinedError: it is not linear, or has no value."""
    ctx = context()
    values = [numeric(_with(term, variable, number(at)), {}, ctx) for at in (0, 1, 2)]
    if abs(values[2] - 2 * values[1] + values[0]) > ctx.mpf(10) ** -30 * (1 + abs(values[2])):
        raise UndefinedError("not linear")
    return values[0], values[1] - values[0]


def _with(node: Node, variable: str, value: Node) -> Node:
    if node.op == "symbol" and node.name == variable:
        return value
    return Node(node.op, tuple(_with(arg, variable, value) for arg in node.args), node.name, node.value, node.digits)
