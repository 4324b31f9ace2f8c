"""What a sign on one side of a pair may mean: percent, degrees, infinity."""

from rewards.grading.compare.policy import Policy
from rewards.grading.parse.tree import Node, number, walk


def readings(a: Node, b: Node, policy: Policy) -> list[tuple[Node, Node]]:
    """The pairs of trees to compare: what a percent or degree sign on one side only may be meant to be."""
    for sign in ("percent", "degree"):
        if (a.op == sign) == (b.op == sign):
            if a.op == sign:
                return [(a.args[0], b.args[0])]
            continue
        found = [(a, b)] if sign == "percent" and policy.percent_as_fraction else []
        bare = (a.args[0], b) if a.op == sign else (a, b.args[0])
        if sign == "percent" and policy.percent_sign_optional:
            found.append(bare)
        if sign == "degree":
            other = b if a.op == sign else a
            in_radians = any(part.name == "pi" or part.name.startswith("arc") for part in walk(other))
            if in_radians and policy.degrees_as_radians:
                found.append((a, b))
            elif policy.degree_sign_optional and not _in_radians(other):
                found.append(bare)
        return found
    return [(a, b)]


def constant(node: Node) -> str | None:
    """The name of a constant (pi, e, i, infinity), with a minus sign or without; None: the tree is none."""
    inner = node.args[1] if node.op == "mul" and len(node.args) == 2 and node.args[0] == number(-1) else node
    return inner.name if inner.op == "constant" else None


def infinite(node: Node) -> int | None:
    """1 for infinity, -1 for minus infinity, None for anything else."""
    if constant(node) != "infinity":
        return None
    return 1 if node.op == "constant" else -1


def _in_radians(node: Node) -> bool:
    """A number with the unit rad, see `grader`."""
    return node.op == "function" and node.name == "radians"
