"""Units: the unit at the end of an answer as a product of powers of base units and a factor.

Known units convert (1 m ~ 100 cm). Any other words after a number (`12 apples`) are a unit of their own, told apart by
their words. A table of its own: the usual libraries take longer to load than a run takes to grade.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

# name: (base units, factor). Prefixes are spelled out for the few units that answers use.
_BASES: dict[str, tuple[dict[str, int], Fraction]] = {}


def _add(names: str, dimension: dict[str, int], factor: Fraction | int | str = 1) -> None:
    for name in names.split():
        _BASES[name] = (dimension, Fraction(factor))


_LENGTH, _MASS, _TIME = {"m": 1}, {"kg": 1}, {"s": 1}
_add("m meter meters metre metres", _LENGTH)
_add("km kilometer kilometers kilometre kilometres", _LENGTH, 1000)
_add("cm centimeter centimeters centimetre centimetres", _LENGTH, "1/100")
_add("mm millimeter millimeters millimetre millimetres", _LENGTH, "1/1000")
_add("dm decimeter decimeters", _LENGTH, "1/10")
_add("um μm micrometer micrometers micron microns", _LENGTH, "1/1000000")
_add("nm nanometer nanometers", _LENGTH, "1/1000000000")
_add("in inch inches", _LENGTH, "254/10000")
_add("ft foot feet", _LENGTH, "3048/10000")
_add("yd yard yards", _LENGTH, "9144/10000")
_add("mi mile miles", _LENGTH, "1609344/1000")
_add("kg kilogram kilograms", _MASS)
_add("g gram grams", _MASS, "1/1000")
_add("mg milligram milligrams", _MASS, "1/1000000")
_add("jin", _MASS, "1/2")
_add("t ton tons tonne tonnes", _MASS, 1000)
_add("lb lbs pound pounds", _MASS, "45359237/100000000")
_add("oz ounce ounces", {"oz": 1})
_add("s sec secs second seconds", _TIME)
_add("ms millisecond milliseconds", _TIME, "1/1000")
_add("min mins minute minutes", _TIME, 60)
_add("h hr hrs hour hours", _TIME, 3600)
_add("day days", _TIME, 86400)
_add("week weeks", _TIME, 604800)
_add("month months", {"month": 1})
_add("year years yr yrs", {"month": 1}, 12)
_add("L l liter liters litre litres", {"m": 3}, "1/1000")
_add("mL ml milliliter milliliters", {"m": 3}, "1/1000000")
_add("acre acres", {"acre": 1})
_add("mu", {"m": 2}, "2000/3")
_add("hectare hectares ha", {"m": 2}, 10000)
_add("N newton newtons", {"kg": 1, "m": 1, "s": -2})
_add("J joule joules", {"kg": 1, "m": 2, "s": -2})
_add("kJ kilojoule kilojoules", {"kg": 1, "m": 2, "s": -2}, 1000)
_add("W watt watts", {"kg": 1, "m": 2, "s": -3})
_add("kW kilowatt kilowatts", {"kg": 1, "m": 2, "s": -3}, 1000)
_add("Pa pascal pascals", {"kg": 1, "m": -1, "s": -2})
_add("kPa", {"kg": 1, "m": -1, "s": -2}, 1000)
_add("V volt volts", {"V": 1})
_add("A amp amps ampere amperes", {"A": 1})
_add("Ω ohm ohms Omega", {"ohm": 1})
_add("Hz hertz", {"s": -1})
_add("kHz", {"s": -1}, 1000)
_add("MHz", {"s": -1}, 1000000)
_add("K kelvin", {"K": 1})
_add("mol mole moles", {"mol": 1})
_add("C coulomb coulombs", {"C": 1})
_add("mph", {"m": 1, "s": -1}, Fraction(1609344, 3600000))
_add("dollar dollars usd USD bucks", {"dollar": 1})
_add("cent cents ¢", {"dollar": 1}, "1/100")
_add("euro euros EUR", {"euro": 1})
_add("yuan RMB CNY", {"yuan": 1})
_add("jiao", {"yuan": 1}, "1/10")
_add("rupee rupees INR", {"rupee": 1})
_add("yen JPY", {"yen": 1})
_add("GBP", {"pound sterling": 1})
_add("rad radian radians", {"rad": 1})
_add("degree degrees deg", {"degree": 1})
_add("celsius", {"celsius": 1})
_add("fahrenheit", {"fahrenheit": 1})
_add("am AM", {"am": 1})
_add("pm PM", {"pm": 1})
_add("percent percentage pct", {"percent": 1})
_add("个", {"count": 1})  # a measure word, see `chinese`: it counts anything
_NO_UNIT = frozenset("unit units sq square cubic of the a an per in about approximately total".split())
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cubed": 3, "cu": 3}
# One letter after a number can be a variable; these are units where a space or \text set them apart.
_SYMBOLS = frozenset("m s g h L l N J W V K t A C".split())
_PART = re.compile(r"([A-Za-zΩ¢\u4e00-\u9fff]+)\s*(?:\^\s*\{?\s*(-?[0-9])\s*\}?)?")
_LETTER = r"A-Za-z\u4e00-\u9fff"
_POWER = r"(?:\s*\^\s*\{?\s*-?[0-9]\s*\}?)?"
_FIRST = rf"(?:[{_LETTER}¢][{_LETTER}.'-]*){_POWER}"
_NEXT = rf"(?:(?:\s*(?:/|\\cdot|\*|·)\s*|\s+)[{_LETTER}][{_LETTER}.'-]*{_POWER})"
_AT_END = re.compile(rf"(?:(?<=[0-9)}}\]%!])|(?<=\\pi))(?P<space>\s*)(?P<unit>{_FIRST}{_NEXT}{{0,7}})\s*$")
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
SCALES |= {"dozen": 12, "百": 100, "千": 1000, "万": 10**4, "亿": 10**8}
_CURRENCY = {
    "$": "dollar",
    "€": "euro",
    "£": "pound sterling",
    "¥": "yuan",
    "₹": "rupee",
    "Rs": "rupee",
    "INR": "rupee",
}
_CURRENCY |= {"USD": "dollar", "EUR": "euro", "GBP": "pound sterling", "RMB": "yuan", "CNY": "yuan"}
MONEY = frozenset(_CURRENCY.values()) | {"yen"}
_MONEY_SIGN = "([$€£¥₹])"
_MONEY_CODE = r"(Rs|INR|USD|EUR|GBP|RMB|CNY)\.?"
_MONEY_BEFORE = rf"^([-+]?)\s*(?:(?:US|A|C|HK|NT)?{_MONEY_SIGN}|{_MONEY_CODE})\s*(?=[0-9.(])"
_MONEY = re.compile(rf"{_MONEY_BEFORE}|(?<=[0-9])\s*{_MONEY_SIGN}$")
_SIGNS = tuple(
    (re.compile(sign), name)
    for sign, name in (
        (r"\\Omega\s*$", "ohm"),
        (r"\^\s*\{?\s*\\circ\s*\}?\s*C$", " celsius"),
        (r"\^\s*\{?\s*\\circ\s*\}?\s*F$", " fahrenheit"),
        (r"\bpounds? sterling$", "GBP"),
        (r"\b([aApP])\. ?[mM]\.?$", lambda match: match[1].lower() + "m"),  # 7:30 p.m.
    )
)
_BELOW = re.compile(r"/\s*\(([^()0-9+=]*)\)$")  # J/(mol·K): all that follows a slash is below it
# Words after a number that say more than what is counted
_NOT_UNITS = frozenset(
    "and or to not than minus plus times if when for pi sqrt sin cos tan log ln exp mod is are infinity inf cup in\
 divided over base by".split()
)


@dataclass(frozen=True)
class Unit:
    """A product of powers of base units (name and exponent, sorted by name), the factor to it, and the text it was."""

    dimension: tuple[tuple[str, int], ...] = ()
    factor: Fraction = Fraction(1)
    text: str = ""


def split_unit(text: str) -> tuple[str, Unit | None, Fraction]:
    """An answer without its unit, the unit (None: there is none), and the factor of a scale word (5 million: 10**6)."""
    for sign, name in _SIGNS:
        text = sign.sub(name, text)
    text = _BELOW.sub(r"/\1", text)
    money = _MONEY.search(text)
    if money:
        symbol = _CURRENCY[money.group(2) or money.group(3) or money.group(4)]
        rest, unit, scale = split_unit((text[: money.start()] + (money.group(1) or "") + text[money.end() :]).strip())
        return rest, Unit(((symbol, 1),), text=symbol) if unit is None or symbol == "dollar" else unit, scale
    match = _AT_END.search(text)
    if match is None:
        return text, None, Fraction(1)
    words = match.group("unit").split()
    scale = Fraction(1)
    while words and words[0].lower() in SCALES:
        scale *= SCALES[words.pop(0).lower()]
    rest, unit_text = text[: match.start()].strip(), " ".join(words)
    if not words:
        return rest, None, scale
    if not _is_unit(unit_text, bool(match.group("space"))):
        return text, None, Fraction(1)
    return rest, read_unit(unit_text), scale


def _is_unit(text: str, spaced: bool) -> bool:
    words = re.findall(r"[A-Za-z¢\u4e00-\u9fff]+", text)
    if _NOT_UNITS & {word.lower() for word in words} - ({"in"} if text == "in" else set()):
        return False
    if not words:
        return False
    first = words[0]
    if first == "¢":
        return True
    if len(words) == 1 and len(first) == 1 and first < "\u4e00":
        return first in _SYMBOLS and (spaced or (first == "m" and text != "m"))
    if len(first) == 1 and first < "\u4e00" and first not in _SYMBOLS and not re.match(r"[a-z] [a-z]{2}", text):
        return False
    return (
        any(word in _BASES or word >= "\u4e00" for word in words)
        or len(first) > 2
        or (spaced and any(len(word) > 2 for word in words))
    )


def read_unit(text: str) -> Unit:
    """The unit of `km/h`, `m/s^2`, `square cm`, `cubic meters per second`; unknown words are a unit of their own."""
    dimension: dict[str, int] = {}
    factor, sign, power = Fraction(1), 1, 1
    unknown: list[str] = []
    for piece in re.split(r"(\s*/\s*|\bper\b)", text):
        if piece.strip() in ("/", "per"):
            sign = -1
            continue
        for match in _PART.finditer(piece):
            name = match.group(1)
            if name.lower() in _POWERS and not match.group(2):
                power = _POWERS[name.lower()]
                if name.lower() in ("squared", "cubed") and dimension:
                    last = next(reversed(dimension))
                    dimension[last] *= power
                    power = 1
                continue
            base = _BASES.get(name) or _BASES.get(name.lower())
            exponent = sign * power * int(match.group(2) or 1)
            power = 1
            if base is None:
                unknown += [] if name.lower() in _NO_UNIT else [name.lower()]
                continue
            for part, count in base[0].items():
                dimension[part] = dimension.get(part, 0) + count * exponent
            factor *= base[1] ** exponent
    if unknown and not dimension:
        return Unit(((_stem(unknown), 1),), text=text)
    return Unit(tuple(sorted((k, v) for k, v in dimension.items() if v)), factor, text)


def _stem(words: list[str]) -> str:
    return " ".join(sorted(re.sub(r"(?<=\w\w)(?:es|s)$", "", word) for word in words))


def agree(a: Unit, b: Unit) -> bool:
    """Do two units measure the same? Other words do where one side says the other's and more (apples, red apples)."""
    if a.dimension == b.dimension:
        return True
    if not a.dimension or not b.dimension:
        return True  # "units", "square units"
    if (("count", 1),) in (a.dimension, b.dimension):
        return not any(name in _BASE_NAMES for unit in (a, b) for name, _ in unit.dimension if name != "count")
    words = [set(unit.dimension[0][0].split()) if len(unit.dimension) == 1 else set() for unit in (a, b)]
    if any(name in _BASE_NAMES for unit in (a, b) for name, _ in unit.dimension):
        return False
    return bool(words[0] and words[1] and (words[0] <= words[1] or words[1] <= words[0]))


_BASE_NAMES = frozenset(name for dimension, _ in _BASES.values() for name in dimension)


def is_known(name: str) -> bool:
    """Is the name that of a unit in the table, and not just a word for what is counted?"""
    return name in _BASES or name.lower() in _BASES
