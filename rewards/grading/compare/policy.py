"""Where conventions differ: one frozen object with one documented choice each; docs/grading.md shows examples."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """What counts as the same answer where graders disagree. Every default can be switched; `~` means equal.

    `limit_s` are the seconds for a pair's symbolic work, from when a worker takes it. `max_length` are the characters
    of a prediction, beyond which only the same text or the same whole number is equal.

    Raises:
        ValueError: a limit or a number of digits is out of range.
    """

    percent_as_fraction: bool = True  # 10% ~ 0.1
    percent_sign_optional: bool = True  # 10% ~ 10
    unit_optional: bool = True  # 12 cm ~ 12; two different units never agree
    convert_units: bool = True  # 1 m ~ 100 cm
    degree_sign_optional: bool = True  # 45° ~ 45
    degrees_as_radians: bool = True  # 180° ~ pi, where the other side has a pi or an arc function
    currency_optional: bool = True  # $5 ~ 5
    decimal_comma: bool = True  # 1,5 ~ 1.5 (never 1,234 ~ 1.234: three digits are thousands, except after a lone 0)
    thousands_space: bool = True  # 1 234 ~ 1234
    rounded_digits: int = 4  # a decimal may stand for an exact value it rounds, from this many digits; 0: never
    name_optional: bool = True  # x = 5 ~ 5
    bare_list_as_tuple: bool = True  # 1, 2 ~ (1, 2), in this order
    braces_as_tuple: bool = True  # {1, 3} ~ (1, 3), in this order, as writers drop the difference
    brackets_as_tuple: bool = True  # [1, 2, 3] ~ (1, 2, 3); with two members these are intervals and differ
    vector_as_tuple: bool = True  # a row or column matrix ~ (1, 2)
    inequality_as_interval: bool = True  # 0 < x < 1 ~ (0, 1)
    ratio_in_lowest_terms: bool = True  # 2:4 ~ 1:2, not for times of day
    ratio_as_fraction: bool = False  # 3:2 ~ 3/2
    time_seconds_optional: bool = True  # 20:34:00 ~ 20:34
    number_words: bool = True  # six ~ 6
    ignore_articles: bool = True  # the elephant ~ elephant
    ignore_plural: bool = True  # cats ~ cat
    choice_any_order: bool = True  # CA ~ A, C where several options are asked for
    last_expression: bool = True  # a response that states no answer: its last formula or number counts
    precision: int | None = None  # digits after the point to which two numbers are rounded before they are compared
    limit_s: float = 2.0
    max_length: int = 2000

    def __post_init__(self) -> None:
        if not self.limit_s > 0:
            raise ValueError(f"Policy.limit_s is {self.limit_s}; it must be a number of seconds above 0")
        if self.precision is not None and not 0 <= self.precision <= 30:
            raise ValueError(
                f"Policy.precision is {self.precision}; it must be None or a number of digits from 0 to 30"
            )
        if self.rounded_digits < 0 or self.max_length < 1:
            raise ValueError(
                f"Policy.rounded_digits is {self.rounded_digits} and max_length {self.max_length};"
                " they must be >= 0 and >= 1"
            )


DEFAULT = Policy()
