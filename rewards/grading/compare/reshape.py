"""Trees rewritten to what they say: ± as two values, x = 5 as a named 5, inequalities as intervals."""

from dataclasses import dataclass

from rewards.grading.parse.tree import SEQUENCES, Node, is_scalar, negative, symbols, walk

MAX_MEMBERS = 200


@dataclass(frozen=True)
class Named:
    """An answer without its name: `x = 5` is 5 named x. `name` is None for an answer without one."""

    name: Node | None
    value: Node


def has_sign(node: Node) -> bool:
    """Is there a ± or ∓ in the tree?"""
    return any(part.op in ("pm", "mp") for part in walk(node))


def with_sign(node: Node, upper: bool) -> Node:
    """The tree with every ± as + (`upper`) or - and every ∓ the other way round."""
    args = tuple(with_sign(arg, upper) for arg in node.args)
    if node.op in ("pm", "mp"):
        return args[0] if (node.op == "pm") == upper else negative(args[0])
    return Node(node.op, args, node.name, node.value, node.digits)


def expanded(node: Node) -> Node:
    """The tree without signs ±: both values, as a bare list or within the list or set that held the sign."""
    if not has_sign(node):
        return node
    if node.op in ("bare", "set"):
        items: list[Node] = []
        for item in node.args:
            items += [with_sign(item, True), with_sign(item, False)] if has_sign(item) else [item]
        return Node(node.op, tuple(items))
    return Node("bare", (with_sign(node, True), with_sign(node, False)))


def unwrapped(node: Node) -> Node:
    """The tree without what says nothing: a list or set of one member is that member, the point P(1, 2) is (1, 2)."""
    while node.op in ("list", "set", "bare") and len(node.args) == 1:
        node = node.args[0]
    labelled = node.op == "mul" and len(node.args) == 2 and node.args[0].op == "symbol" and node.args[1].op == "tuple"
    return node.args[1] if labelled and node.args[0].name.isupper() else node


def is_name(node: Node) -> bool:
    """Is the tree what an answer is called: x, f(x), |AB|, AB, NO/BO, (x, y), S_1 : S? 2x + 1 is not."""
    if node.op in ("symbol", "constant"):
        return node.name not in ("infinity", "pi") and not node.name.startswith("mathbb")
    if node.op == "function":
        return bool(symbols(node)) and (node.name.endswith("()") or (node.name == "abs" and is_name(node.args[0])))
    if node.op in ("tuple", "ratio", "div"):
        return all(is_name(arg) for arg in node.args)
    if node.op == "mul":  # P(x) and AB read as products
        return all(is_name(arg) and _is_capital(arg, index == 0) for index, arg in enumerate(node.args))
    return False


_RATIOS_OF_ANGLES = frozenset("sin cos tan cot sec csc".split())


def _is_label(node: Node) -> bool:
    """Is the left side of an equation what was asked for: a limit or sum, AB^2, P(X = 2), dy/dx, cos A? x^2 is not."""
    if node.op in ("limit", "integral", "sum", "product"):
        return True
    if node.op == "function":
        angle = node.args[0]
        unknown = angle.op != "symbol" or (len(angle.name) == 1 and angle.name.islower())
        return node.name in _RATIOS_OF_ANGLES and not unknown  # sin x = 1/2 is still to be solved
    if node.op == "pow":
        base = node.args[0]
        return node.args[1].value is not None and base.op != "symbol" and is_name(base)
    if node.op == "div":
        return all(_is_differential(arg) for arg in node.args)
    if node.op != "mul":
        return False
    first, *rest = node.args
    if first.op == "div":
        return _is_label(first) and (first.args[0].op in ("symbol", "pow") or all(map(is_name, rest)))
    if first.op == "symbol" and len(rest) == 1 and rest[0].op in ("relation", "union", "intersection", "difference"):
        return first.name in ("P", "E", "D")
    if (
        first.op == "symbol"
        and first.name == "P"
        and all(part.op in ("mul", "symbol", "constant") for arg in rest for part in walk(arg))
    ):
        return True  # P(red)
    last = node.args[-1]
    return last.op == "pow" and is_name(Node("mul", (*node.args[:-1], last.args[0]))) and last.args[1].value is not None


def _is_differential(node: Node) -> bool:
    """d, dy, d^2y and dx^2 of a derivative, with d or ∂."""
    first = node.args[0] if node.op == "mul" else node
    first = first.args[0] if first.op == "pow" else first
    return first.op == "symbol" and first.name in ("d", "partial") and len(node.args) <= 2


def _is_capital(node: Node, first: bool) -> bool:
    """The factors of a name: capital letters, P(x) too."""
    if node.op == "mul":
        return is_name(node)
    if node.op == "symbol" and node.name.startswith("triangle "):
        return not first  # S of a triangle
    return node.op == "symbol" and (node.name[0].isupper() or (not first and len(node.name) == 1))


def named(node: Node) -> Named:
    """The name and the value of `name = value`, `value = name`, `name ∈ set` and the chain `a = b = value`."""
    if node.op != "relation":
        return Named(None, node)
    if node.name == "and" and all(part.name in ("=", "~") for part in node.args):
        exact = [part.args[1] for part in node.args if part.name == "="]
        return Named(node.args[0].args[0], exact[-1] if exact else node.args[0].args[0])
    if node.name not in ("=", "~", "in"):
        return Named(None, node)
    left, right = node.args
    if node.name == "~" and not symbols(left):
        return Named(None, left)  # 19/6 ≈ 3.17 states the exact value, too
    if (
        is_name(left)
        or (node.name == "=" and _is_label(left))
        or (node.name != "in" and not symbols(left) and not symbols(right) and is_scalar(node.args[0]))
    ):
        return Named(left, right)
    if node.name == "=" and is_name(right) and not symbols(left):
        return Named(right, left)
    return Named(None, node)


def without_names(node: Node) -> Named:
    """Like `named`, and takes the names off the members of a list, too.

    `x=1, y=2` is 1, 2 named (x, y); `p=5, q=2, p=7, q=2` is (5, 2), (7, 2) named (p, q); `n=1, 2` is 1, 2 named n.
    """
    if node.op not in ("bare", "set") or len(node.args) > MAX_MEMBERS:
        return named(node)
    parts = [named(arg) for arg in node.args]
    names = [part.name for part in parts if part.name is not None]
    if not names:
        return Named(None, node)
    values = tuple(part.value for part in parts)
    if len(names) < len(parts):
        alone = len(names) == 1 and parts[0].name is not None
        return Named(names[0], expanded(Node("bare", values))) if alone else Named(None, node)
    period = next(k for k in range(1, len(names) + 1) if names == names[:k] * (len(names) // k))
    if period == 1:
        return Named(names[0], expanded(Node("bare", values)))
    if period == len(names):
        return Named(Node("tuple", tuple(names)), Node("bare", values))
    rows = [Node("tuple", values[start : start + period]) for start in range(0, len(values), period)]
    return Named(Node("tuple", tuple(names[:period])), Node("bare", tuple(rows)))


_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def as_interval(node: Node) -> tuple[Node, Node] | None:
    """The quantity and the interval of `x > 5`, `-3 < x <= 5`, `x ≠ 0`; None: the tree is no such inequality."""
    if node.op != "relation":
        return None
    return _chain(node) if node.name == "and" else _one_sided(node)


def is_absolute(node: Node) -> bool:
    """Is the tree |x|, of which an inequality says something about x? |AB| is a name."""
    return node.op == "function" and node.name == "abs" and node.args[0].op == "symbol"


def _one_sided(node: Node) -> tuple[Node, Node] | None:
    left, right = node.args
    op = node.name
    if symbols(right) and not symbols(left):
        left, right, op = right, left, _FLIPPED.get(op, op)
    if symbols(right) or not (is_name(left) or left.op == "symbol") or op in ("=", "~", "in"):
        return None
    top = Node("constant", name="infinity")
    bottom = negative(top)
    if op == "!=":
        return left, Node("union", (Node("interval", (bottom, right), "()"), Node("interval", (right, top), "()")))
    if op in (">", ">="):
        return left, Node("interval", (right, top), "[)" if op == ">=" else "()")
    return left, Node("interval", (bottom, right), "(]" if op == "<=" else "()")


def _chain(node: Node) -> tuple[Node, Node] | None:
    if len(node.args) != 2:
        return None
    lower, upper = node.args
    ops = lower.name, upper.name
    if not set(ops) <= {"<", "<="} and not set(ops) <= {">", ">="}:
        return None
    quantity, low, high = lower.args[1], lower.args[0], upper.args[1]
    closed = [op.endswith("=") for op in ops]
    if ops[0].startswith(">"):
        low, high, closed = high, low, closed[::-1]
    if symbols(low) & symbols(quantity) or symbols(high) & symbols(quantity) or not is_name(quantity):
        return None
    return quantity, Node("interval", (low, high), ("[" if closed[0] else "(") + ("]" if closed[1] else ")"))


def is_sequence(node: Node) -> bool:
    """Is the tree a list, tuple or set of members? `[1, 2]` may be a list as well as an interval."""
    return node.op in SEQUENCES or (node.op == "interval" and node.name == "[]")
