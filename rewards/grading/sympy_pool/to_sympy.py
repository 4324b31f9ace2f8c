"""Trees as sympy expressions, and the three questions that need sympy. Imported by the worker process only."""

import functools
import operator
from typing import Any

import sympy
from sympy import S

_FUNCTIONS = {
    **{
        name: getattr(sympy, name)
        for name in "sin cos tan cot sec csc sinh cosh tanh coth floor sign erf binomial".split()
    },
    **{"arc" + name: getattr(sympy, "a" + name) for name in "sin cos tan cot sec csc sinh cosh tanh".split()},
    **{"abs": sympy.Abs, "ceil": sympy.ceiling, "factorial": sympy.factorial, "binom": sympy.binomial},
    **{"max": sympy.Max, "min": sympy.Min, "gcd": sympy.gcd, "lcm": sympy.lcm, "Re": sympy.re, "Im": sympy.im},
    **{"log": sympy.log, "arg": sympy.arg, "gamma": sympy.gamma, "det": lambda matrix: matrix.det()},
}
_CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "infinity": sympy.oo}
_RELATIONS = {"=": sympy.Eq, "!=": sympy.Ne, "<": sympy.Lt, "<=": sympy.Le, ">": sympy.Gt, ">=": sympy.Ge}


def build(node: list, real: bool = False) -> Any:
    """A tree, encoded as `[op, name, arguments]`, as a sympy object: an expression, a matrix or a set.

    Args:
        real: whether its symbols are real numbers; else they are complex.

    Raises:
        ValueError: sympy has no form of it.
    """
    op, name, args = node
    if op == "number":
        return sympy.Rational(*map(int, name.split("/")))
    if op == "symbol":
        if name == "mathbb R":
            return S.Reals
        return sympy.Symbol(name, real=True if real else None)
    if op == "constant":
        return _CONSTANTS[name]
    if op in ("sum", "product", "integral", "limit"):
        return _bound(op, name, args, real)
    inside = [build(arg, real) for arg in args]
    return _combined(op, name, inside)


def _bound(op: str, name: str, args: list, real: bool) -> Any:
    variable = sympy.Symbol(name, real=True if real else None)
    if op == "limit":
        side = args[2][1] or "+-"
        return sympy.limit(build(args[0], real), variable, build(args[1], real), side)
    body, *limits = (build(arg, real) for arg in args)
    make = {"sum": sympy.Sum, "product": sympy.Product, "integral": sympy.Integral}[op]
    return make(body, (variable, *limits) if limits else variable)


def _combined(op: str, name: str, inside: list) -> Any:
    if op == "add":
        return functools.reduce(operator.add, inside)
    if op == "mul":
        return functools.reduce(operator.mul, inside)
    if op == "div":
        return inside[0] / inside[1]
    if op == "pow":
        return inside[0] ** inside[1]
    if op == "percent":
        return inside[0] / 100
    if op == "degree":
        return inside[0] * sympy.pi / 180
    if op == "function":
        return sympy.Function(name)(*inside) if name.endswith("()") else _FUNCTIONS[name](*inside)
    if op == "row":
        return inside
    if op == "matrix":
        return sympy.Matrix(inside)
    if op == "set":
        return sympy.FiniteSet(*inside)
    if op == "interval" or (op == "tuple" and len(inside) == 2):
        brackets = name or "()"
        return sympy.Interval(inside[0], inside[1], brackets[0] == "(", brackets[1] == ")")
    if op in ("union", "intersection", "difference"):
        return {"union": sympy.Union, "intersection": sympy.Intersection, "difference": sympy.Complement}[op](*inside)
    raise ValueError(f"no sympy form of {op}")


def equal(a: list, b: list) -> bool | None:
    """Have two expressions the same value for all values of their symbols?"""
    left, right = build(a).doit(), build(b).doit()
    difference = left - right
    if difference == 0 or sympy.simplify(difference) == 0:
        return True
    if any(difference.has(kind) for kind in (sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit)):
        numbers = sympy.N(difference, 20) if not difference.free_symbols else None
        return None if numbers is None or not numbers.is_number else bool(abs(numbers) < 1e-12)
    verdict = difference.equals(0)
    return None if verdict is None else bool(verdict)


def matrix(a: list, b: list) -> bool | None:
    """Are two expressions of matrices the same matrix?"""
    left, right = build(a), build(b)
    if not (isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase)):
        return False
    if left.shape != right.shape:
        return False
    return bool(sympy.simplify(left - right).is_zero_matrix)


def solve(a: list, b: list) -> bool | None:
    """Have two equations, inequalities or sets of one real unknown the same real solutions?"""
    left, right = _solutions(a), _solutions(b)
    if left == right:
        return True
    difference = sympy.SymmetricDifference(left, right)
    empty = difference.is_empty
    return None if empty is None else bool(empty)


def _solutions(node: list) -> Any:
    if node[0] == "bare":
        return sympy.Union(*(_solutions(arg) for arg in node[2]))
    if node[0] != "relation":
        found = build(node, real=True)
        return found if isinstance(found, sympy.Set) else sympy.FiniteSet(found)
    if node[1] == "and":
        return sympy.Intersection(*(_solutions(arg) for arg in node[2]))
    left, right = (build(arg, real=True) for arg in node[2])
    if node[1] == "in":
        return right
    relation = _RELATIONS[node[1]](left, right)
    symbols = relation.free_symbols
    if len(symbols) != 1:
        raise ValueError("more than one unknown")
    return sympy.solveset(relation, symbols.pop(), S.Reals)


TASKS = {"equal": equal, "matrix": matrix, "solve": solve}
