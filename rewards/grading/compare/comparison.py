"""Two trees, one verdict: structures member by member, relations by their solutions, scalars by their values."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rewards.grading.compare import progressions, realsets, relations, vectors
from rewards.grading.compare.policy import Policy
from rewards.grading.compare.readings import constant, infinite, readings
from rewards.grading.compare.reshape import Named, as_interval, expanded, is_name, is_sequence, unwrapped, without_names
from rewards.grading.compare.scalars import rational, same_value, same_when_rounded
from rewards.grading.parse import matrices
from rewards.grading.parse.tree import Node, TooBigError, is_scalar, number, symbols, walk

Verdict3 = bool | None  # None: undecided
_SETS = frozenset({"interval", "union", "intersection", "difference"})
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


@dataclass
class Comparison:
    """The comparison of one pair.

    `ask_sympy` takes a task ("equal", "matrix" or "solve") and both trees to sympy. `tier` becomes the dearest tier
    that was needed.
    """

    policy: Policy
    ask_sympy: Callable[[str, Node, Node], Verdict3]
    tier: str = "structure"

    def ask(self, task: str, a: Node, b: Node) -> Verdict3:
        """Asks sympy, and notes that it was needed. Raises what `ask_sympy` raises."""
        self.tier = "symbolic"
        return self.ask_sympy(task, a, b)

    def same(self, a: Node, b: Node) -> Verdict3:
        """Is prediction `a` the same answer as gold `b`? None: undecided.

        Raises:
            TooBigError: a side is beyond the limits on size.
        """
        a, b = expanded(unwrapped(a)), expanded(unwrapped(b))
        if a == b:
            return True
        families = progressions.family(a), progressions.family(b)
        if families != (None, None):
            return self._families(families[0] or progressions.undeclared(a), families[1] or progressions.undeclared(b))
        if a.op == b.op == "relation" or (_is_inequality(a) and _is_inequality(b)):
            direct = self._relations(a, b)
            if direct is not None:
                return direct
        one, other = without_names(a), without_names(b)
        if one.name is None and other.name is None:
            return self._values(expanded(one.value), expanded(other.value))
        if not self.policy.name_optional and (one.name is None or other.name is None):
            return False
        if one.name is not None and other.name is not None and not _same_name(one.name, other.name):
            return self._reordered(one, other)
        if one.name is not None and one.name == other.name and _each_named(one) and _each_named(other):
            return self._ordered(one.value.args, other.value.args)
        if (one.name is None) != (other.name is None) and _are_equations(a) and _are_equations(b):
            return self._any_order(a.args, b.args)
        if (one.name is None) != (other.name is None) and _is_equation(a if one.name is None else b):
            return self._equation(a, b)
        return self._values(expanded(unwrapped(one.value)), expanded(unwrapped(other.value)))

    def _families(self, a: progressions.Family | None, b: progressions.Family | None) -> Verdict3:
        """2k + 1 against 2n - 1, for all whole numbers."""
        if a is None or b is None or len(a.terms) != len(b.terms) or (a.domain and b.domain and a.domain != b.domain):
            return False
        terms = list(progressions.renamed(b, a.variable))
        verdict = self._any_order(a.terms, terms)
        if verdict or "mathbb Z" not in (a.domain, b.domain):
            return verdict
        for term in a.terms:
            index = next((i for i, x in enumerate(terms) if progressions.same_progression(term, x, a.variable)), None)
            if index is None:
                return verdict
            terms.pop(index)
        return True

    def _equation(self, a: Node, b: Node) -> Verdict3:
        """x^2 = 4 against x = ±2."""
        return self.ask("solve", a, b) if symbols(a) == symbols(b) and len(symbols(a)) == 1 else False

    def _reordered(self, a: Named, b: Named) -> Verdict3:
        """`x=1, y=2` against `y=2, x=1`."""
        names = [named.name.args if named.name and named.name.op == "tuple" else () for named in (a, b)]
        if len(names[0]) < 2 or set(names[0]) != set(names[1]) or a.value.op not in ("bare", "tuple"):
            return False
        order = [names[0].index(name) for name in names[1]]
        return (
            self._ordered([a.value.args[index] for index in order], b.value.args)
            if len(order) == len(b.value.args)
            else False
        )

    def _values(self, a: Node, b: Node) -> Verdict3:
        if a == b:
            return True
        if "base" in (a.op, b.op) or "ratio" in (a.op, b.op):
            return self._ratio(a, b)
        for components, total in ((a, b), (b, a)):
            if self.policy.vector_as_tuple and (sums := vectors.in_unit_vectors(components, total)):
                return self._scalar(*sums)
        if "matrix" in (a.op, b.op) or matrices.has_matrix(a) or matrices.has_matrix(b):
            return self._matrices(a, b)
        if a.op == b.op == "relation" and a.name == b.name == "and" and len(_unknowns(a) | _unknowns(b)) > 1:
            return self._chains(a, b)
        if _is_set(a) or _is_set(b) or _is_inequality(a) or _is_inequality(b):
            verdict = self._sets(a, b)
            if verdict is not None or not (is_sequence(a) and is_sequence(b)):
                return verdict
        if is_sequence(a) or is_sequence(b):
            return self._sequences(a, b)
        if a.op == b.op == "relation":
            if a.name == b.name == "and":
                return self._ordered(a.args, b.args)
            verdict = self._relations(a, b)
            return False if verdict is None and self.tier != "symbolic" else verdict
        if "relation" in (a.op, b.op):
            return False
        if not (is_scalar(a) and is_scalar(b)):
            return False
        return self._scalars(a, b)

    def _scalars(self, a: Node, b: Node) -> Verdict3:
        verdicts = [self._scalar(one, other) for one, other in readings(a, b, self.policy)]
        return _any(verdicts)

    def _scalar(self, a: Node, b: Node) -> Verdict3:
        if "infinity" in (constant(a), constant(b)):
            return infinite(a) == infinite(b) and infinite(a) is not None
        if None in (rational(a), rational(b)):
            self.tier = "numeric" if self.tier == "structure" else self.tier
        if (
            self.policy.precision is not None
            and (rounded := same_when_rounded(a, b, self.policy.precision)) is not None
        ):
            return rounded
        verdict = same_value(a, b, self.policy)
        return self.ask("equal", a, b) if verdict is None else verdict

    def _ordered(self, a: Sequence[Node], b: Sequence[Node]) -> Verdict3:
        return _all(self.same(one, other) for one, other in zip(a, b, strict=True)) if len(a) == len(b) else False

    def _any_order(self, a: Sequence[Node], b: Sequence[Node]) -> Verdict3:
        """Each member of one has its own partner in the other."""
        if len(a) != len(b):
            return False
        left, undecided = list(b), False
        for one in a:
            verdicts = []
            for other in left:
                verdicts.append(self.same(one, other))
                if verdicts[-1]:
                    break
            if verdicts and verdicts[-1]:
                left.pop(len(verdicts) - 1)
            elif None in verdicts:
                undecided = True
            else:
                return False
        return None if undecided else True

    def _sequences(self, a: Node, b: Node) -> Verdict3:
        if not (is_sequence(a) and is_sequence(b)):
            return False
        kinds = frozenset({"list" if node.op == "interval" else node.op for node in (a, b)})
        policy = self.policy
        if kinds <= {"bare", "set"}:
            return self._any_order(_distinct(a), _distinct(b))
        if kinds in ({"bare", "list"}, {"set", "list"}):
            return self._any_order(a.args, b.args)
        if kinds == {"bare", "tuple"}:
            bare = a if a.op == "bare" else b
            if any(item.op == "tuple" for item in bare.args) or not policy.bare_list_as_tuple:
                return False
        if kinds == {"set", "tuple"} and not policy.braces_as_tuple:
            return False
        if kinds == {"list", "tuple"} and (not policy.brackets_as_tuple or len(a.args) == 2):
            return False
        return self._ordered(a.args, b.args)

    def _matrices(self, a: Node, b: Node) -> Verdict3:
        a, b = matrices.computed(matrices.as_matrix(a)), matrices.computed(matrices.as_matrix(b))
        if a.op == b.op == "matrix":
            shapes = [(len(node.args), len(node.args[0].args)) for node in (a, b)]
            if shapes[0] != shapes[1]:
                return False
            return _all(self._ordered(x.args, y.args) for x, y in zip(a.args, b.args, strict=True))
        matrix, other = (a, b) if a.op == "matrix" else (b, a)
        if matrix.op == "matrix" and is_sequence(other) | (other.op == "interval"):
            vector = matrices.vector(matrix)
            if vector is None or not self.policy.vector_as_tuple:
                return False
            return self._ordered(*((vector, other.args) if matrix is a else (other.args, vector)))
        if matrices.has_matrix(a) and matrices.has_matrix(b):
            return self.ask("matrix", a, b)
        return False

    def _sets(self, a: Node, b: Node) -> Verdict3:
        if not self.policy.inequality_as_interval and _is_inequality(a) != _is_inequality(b):
            return False
        quantities = [found[0] for node in (a, b) if (found := as_interval(node))]
        if len(quantities) == 2 and not _same_name(*quantities):
            return False
        for node in (a, b):  # an ordinary list is no set of reals
            if node.op in ("bare", "list") and not _is_inequality(node):
                return None if is_sequence(a) and is_sequence(b) else False
        try:
            if a.op == "interval" and a.name == "[]" and b.op in ("set", "list"):
                return None
            return realsets.same_set(a, b, self._scalars)
        except (realsets.NotASetError, TooBigError):
            pass
        plain = [node for node in (a, b) if node.op == "interval" or (node.op == "tuple" and len(node.args) == 2)]
        if len(plain) == 2:
            return self._ordered(a.args, b.args) if (a.name or "()") == (b.name or "()") else False
        if is_scalar(a) or is_scalar(b) or any(node.name == "and" and len(node.args) > 2 for node in (a, b)):
            return False
        if any(node.op in ("tuple", "matrix") and len(node.args) != 2 for node in (a, b)):
            return False
        if any(_constant_set(one) and _unknowns(other) and not _has_relation(other) for one, other in ((a, b), (b, a))):
            return False  # (-1, 1) against (-a, a)
        if len(_unknowns(a) | _unknowns(b)) > 1:
            ours, theirs = _one_interval(a), _one_interval(b)
            if ours is None or theirs is None or ours.name != theirs.name:
                return False
            return self._ordered(ours.args, theirs.args)
        return self.ask("solve", a, b)

    def _chains(self, a: Node, b: Node) -> Verdict3:
        """c < a < b against b > a > c; what stands between equality signs has no order."""
        groups, signs = _rising(a)
        others, other_signs = _rising(b)
        if signs != other_signs:
            return False
        return _all(self._any_order(one, other) for one, other in zip(groups, others, strict=True))

    def _times(self, a: Node, b: Node) -> Verdict3:
        """3:05 pm against 15:05, and against 3:05 where a unit may be left out."""
        if self._same_time(_on_24_hours(a), _on_24_hours(b)):
            return True
        halves = {"am", "pm"}
        return self.policy.unit_optional and not {a.name, b.name} <= halves and self._same_time(a, b)

    def _same_time(self, a: Node, b: Node) -> Verdict3:
        short, long = sorted((a.args, b.args), key=len)
        if len(short) < len(long) and not (self.policy.time_seconds_optional and long[-1] == number(0)):
            return False
        return self._ordered(long[: len(short)], short)

    def _ratio(self, a: Node, b: Node) -> Verdict3:
        if a.op == b.op == "ratio" and (a.name or b.name):
            return self._times(a, b)
        if a.op == b.op == "ratio":
            if len(a.args) != len(b.args):
                short, long = sorted((a.args, b.args), key=len)
                zero = len(long) == len(short) + 1 == 3 and long[-1] == number(0)
                return zero and self.policy.time_seconds_optional and self._ordered(long[:-1], short)
            if self._ordered(a.args, b.args):
                return True
            if not self.policy.ratio_in_lowest_terms or _is_quarter(a) or _is_time(b):
                return False
            crossed = [
                self._scalar(Node("mul", (x, b.args[-1])), Node("mul", (y, a.args[-1])))
                for x, y in zip(a.args[:-1], b.args[:-1], strict=True)
            ]
            return _all(crossed)
        ratio, other = (a, b) if a.op == "ratio" else (b, a)
        if ratio.op == "ratio" and len(ratio.args) == 2 and is_scalar(other) and self.policy.ratio_as_fraction:
            return self._scalar(Node("div", ratio.args), other)
        return False

    def _relations(self, a: Node, b: Node) -> Verdict3:
        """Equations and inequalities: equal up to a constant factor, else by their solutions. None: not such a pair."""
        if a.op != "relation" or b.op != "relation" or "and" in (a.name, b.name):
            return None
        if "in" in (a.name, b.name):
            return None
        if not (is_scalar(a.args[0]) and is_scalar(b.args[0]) and is_scalar(a.args[1]) and is_scalar(b.args[1])):
            return None
        if symbols(a) != symbols(b):
            return None if any(is_name(side) for node in (a, b) for side in node.args) else False
        if all(node.name == "=" and is_name(node.args[0]) and not symbols(node.args[1]) for node in (a, b)):
            return None  # x = 5 against x = 6: two values
        self.tier = "numeric"
        factor = relations.factor(a, b)
        if factor is not None:
            op = a.name if factor > 0 else _FLIPPED.get(a.name, a.name)
            return op == b.name
        if len(symbols(a)) == 1 and "function" not in {part.op for part in walk(a)}:
            return self.ask("solve", a, b)
        return False


def _each_named(named: Named) -> bool:
    """x = 1, y = 2: a name for each of several values."""
    name, values = named.name, named.value
    return name is not None and name.op == "tuple" and values.op == "bare" and len(values.args) == len(name.args)


def _is_equation(node: Node) -> bool:
    return node.op == "relation" and node.name == "="


def _are_equations(node: Node) -> bool:
    """Two equations or more, such as y = 2x, y = -2x."""
    return node.op == "bare" and all(_is_equation(arg) for arg in node.args)


def _unknowns(node: Node) -> frozenset[str]:
    return frozenset(name for name in symbols(node) if not name.startswith("mathbb "))


def _has_relation(node: Node) -> bool:
    return any(part.op == "relation" for part in walk(node))


def _constant_set(node: Node) -> bool:
    return _is_set(node) and not _unknowns(node) and not _has_relation(node)


def _one_interval(node: Node) -> Node | None:
    """The interval that a pair, an interval or an inequality is, whose ends may be symbols."""
    if node.op == "tuple" and len(node.args) == 2:
        return Node("interval", node.args, "()")
    found = (None, node) if node.op == "interval" else as_interval(node)
    return found[1] if found and found[1].op == "interval" else None


def _rising(chain: Node) -> tuple[list[list[Node]], list[str]]:
    """The terms of a chain from low to high, equal ones together, and the signs between them: > as < from the end."""
    terms, signs = [chain.args[0].args[0], *(part.args[1] for part in chain.args)], [part.name for part in chain.args]
    if not set(signs) & {"<", "<="}:
        terms, signs = terms[::-1], [_FLIPPED.get(sign, sign) for sign in signs[::-1]]
    groups = [[terms[0]]]
    for term, sign in zip(terms[1:], signs, strict=True):
        if sign == "=":
            groups[-1].append(term)
        else:
            groups.append([term])
    return groups, [sign for sign in signs if sign != "="]


def _on_24_hours(time: Node) -> Node:
    """The time 15:05 of 3:05 pm; 12 am is 0."""
    hour = rational(time.args[0])
    if time.name not in ("am", "pm") or hour is None or hour.denominator != 1 or not 1 <= hour <= 12:
        return time
    return Node("ratio", (number(hour % 12 + (12 if time.name == "pm" else 0)), *time.args[1:]))


def _all(verdicts: Iterable[Verdict3]) -> Verdict3:
    result: Verdict3 = True
    for verdict in verdicts:
        if verdict is False:
            return False
        result = None if verdict is None else result
    return result


def _any(verdicts: list[Verdict3]) -> Verdict3:
    return True if True in verdicts else None if None in verdicts else False


def _is_set(node: Node) -> bool:
    return node.op in _SETS or (node.op == "symbol" and node.name == "mathbb R")


def _is_inequality(node: Node) -> bool:
    if node.op == "bare":
        return bool(node.args) and all(_is_inequality(arg) for arg in node.args)
    if node.op != "relation":
        return False
    return any(part.name in ("<", "<=", ">", ">=", "!=") for part in (node, *node.args) if part.op == "relation")


def _distinct(node: Node) -> tuple[Node, ...]:
    """The members; of a set in braces or a list of points, each once."""
    points_only = bool(node.args) and all(arg.op == "tuple" for arg in node.args)
    return tuple(dict.fromkeys(node.args)) if node.op == "set" or points_only else node.args


def _same_name(a: Node, b: Node) -> bool:
    """Different single letters are different unknowns; anything longer, f(x) against y, is what the writer calls it."""
    if a == b or a.op != b.op:
        return True
    if a.op == "tuple":
        return len(a.args) == len(b.args) and all(map(_same_name, a.args, b.args))
    if a.name.startswith("angle ") and b.name.startswith("angle ") and len(a.name) == len(b.name):
        return sorted(a.name) == sorted(b.name)  # an angle may have a number and letters
    return a.op != "symbol" or len(a.name) > 1 or len(b.name) > 1


def _is_quarter(node: Node) -> bool:
    """10:30, 12:45: times that are no ratio even against one; 2:18 is 1:9."""
    return _is_time(node) and rational(node.args[1]) in (0, 15, 30, 45)


def _is_time(node: Node) -> bool:
    """12:00, 7:05: two whole numbers that a clock shows, the second of which is not in lowest terms' range alone."""
    values = [rational(arg) for arg in node.args]
    return len(values) == 2 and values[1] is not None and (values[1] == 0 or 10 <= values[1] < 60)
