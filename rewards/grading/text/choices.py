"""Answers to multiple choice: the letter of `B`, `(B)`, `B.`, `Option B`, `B. 12`; letters of several options."""

import re
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJ"
_LEAD = r"(?i:(?:the\s+)?(?:correct\s+|right\s+|final\s+)?(?:option|choice|answer)s?\s*(?:is|are|:)?\s*)?"
_SINGLE = re.compile(rf"{_LEAD}[(\[]?\s*([A-Ja-j])\s*[)\]]?\s*[.:,;]?", re.IGNORECASE)
_BRACKETED = r"\(\s*([A-Ja-j])\s*\)\s*[.:]?\s*|\[([A-J])\]\s*|([A-Ja-j])\)\s*"
_DASH = r"\s+[-–—]\s+(?=[a-z][a-z])"
_BEFORE_GLOSS = r"\s+(?=\([^()]*[a-z]{2}[^()]*\)$)"  # B (the red one)
_WITH_TEXT = re.compile(
    rf"{_LEAD}(?:{_BRACKETED}|([A-J])(?:\.\s*|:\s+|{_DASH}|{_BEFORE_GLOSS})|([a-j])\.\s+)(\S.*)",
    re.DOTALL,
)
_MEMBERS = r"[(\[]?[A-J][)\]]?(?:\s*(?:[,;&/、和与]\s*)?(?:and\s+)?[(\[]?[A-J][)\]]?){1,9}"
_MANY = re.compile(rf"{_LEAD}({_MEMBERS})")
_CHOOSES = "options|choices|statements|answers?|select|choose|pick|are"
_BEFORE_MANY = rf"(?:\b(?:{_CHOOSES})\s*(?:are|is)?|[选選项为是])\s*:?\s*"
_ARE_RIGHT = r"\s+are\s+(?:both\s+|all\s+)?(?:correct|right|true)\b"
_MANY_IN_PROSE = re.compile(rf"{_BEFORE_MANY}({_MEMBERS})(?![A-Za-z])|(?<![A-Za-z])({_MEMBERS}){_ARE_RIGHT}")
_LISTED = re.compile(r"(?<![A-Za-z0-9])[(\[]?([A-J])[)\].:]")

# A letter in a sentence. What makes it a choice stands before it or after it, from weak to strong.
_LETTER = re.compile(r"(?<![A-Za-z0-9\\'’_^])([(\[*$]*)([A-J])([)\]*$]*)(?![A-Za-z0-9\\'’_^])(?!\s*[=+*/<>^|])(?!-)")
_GOES_ON = "because|since|as|for|and|but|which|not|instead|rather|it|here|is|was|would|seems|looks|matches|from|due"
_ENDS = re.compile(rf"\s*(?:$|[.,;:!)\]*]|-{{1,2}}\s|\(|[\u4e00-\u9fff]|(?:{_GOES_ON})\b)")
_ENDS_CLAUSE = re.compile(r"\s*(?:$|[.,;:!)\]*]|-{1,2}\s|(?:because|since|as|for)\b|不是)")
_NOUN = r"(?:\s*(?:the|option|choice|answer|letter|figure|image|picture|graph|diagram|statement|candidate|clearly))*"
_STATED_BEFORE = re.compile(
    rf"(?:answer|choice|option|选项|答案)s?\s*(?:is|are|:|would be|must be|should be|=|->|是|为|為){_NOUN}\s*:?\s*$",
    re.IGNORECASE,
)
_IS = r"(?:is|must be|would be|looks|seems)\s+"
_INDEED = r"(?:(?:the|\w+ly|just|indeed|therefore|only)\s+)*"
_RIGHT = r"(?:correct|right|true|answer|best|solution|one)\b"
_HAS_THE_RIGHT = r"(?:shows|gives|has|represents|depicts|describes|contains)\s+the\s+(?:right|correct)\b"
_STATED_AFTER = re.compile(rf"\s*{_IS}{_INDEED}{_RIGHT}|\s*{_HAS_THE_RIGHT}|\s*(?:是正确|正确|是对的)", re.IGNORECASE)
_PICKS = (
    "pick|choos(?:e|ing)|chose|select(?:ing|ed)?|go(?:ing)? with|went with|must be|should be|has to be|it is"
    "|it's|that's|is|are|be|so|thus|hence|therefore|then|but|only|looks like|seems|leaves|left with|leaving"
    "|match(?:es)?|sure|surely|corresponds? to|say|answer|ans"
)
_PICKS_CHINESE = "选|選|择|擇|选择|選擇|答案|即|也就是|就是"
_CHOSEN_BEFORE = re.compile(rf"(?:\b(?:{_PICKS})|{_PICKS_CHINESE})\s*[:,]?{_NOUN}\s*:?\s*$", re.IGNORECASE)
_IS_CHOSEN = r"remains|is left|is the only|is better|works\b|fits\b|it is\b|is what|is chosen|选项"
_CHOSEN_AFTER = re.compile(rf"\s*(?:{_IS_CHOSEN})(?!\s*(?:not|n't))", re.IGNORECASE)
_NAMED_BEFORE = re.compile(r"(?:\b(?:option|choice)|选项)\s*$", re.IGNORECASE)
_CLAUSE_BEFORE = re.compile(r"(?:[.;!:,]\s|\n)\s*(?:and|but|yes|no|ok|okay|[a-z]+ly)?[\s,]*$", re.IGNORECASE)
_JOINS = r"(?:,|、|/|&|\band\b|\bor\b|\bnor\b|和|与|或|及)"
_AND_MORE = rf"(?:[)\]]*\s*{_JOINS}\s*(?:(?:option|and|or|maybe|perhaps|possibly)\s+)*[(\[]*[A-J](?![A-Za-z0-9]))"
_GROUP = re.compile(_AND_MORE)
_NOT = (
    r"\bnot|n't|不是|不选|排除|\bneither|\bnor|rather than|eliminat(?:e[sd]?|ing)|exclud(?:e[sd]?|ing)|instead of"
    r"|\bover|\brul(?:e[sd]?|ing) out|\bexcept|\bunlike|\b(?:all|any|anything|everything) but|\bthan"
    r"|\breject(?:s|ed)?|\bdiscard(?:s|ed)?|\bwhy"
)
_OF_CHOICES = r"(?:(?:be|both|options?|choices?)\s+)*"
_TO_THINK = r"(?:\s+(?:think|believe|say|sure)(?:\s+(?:that|whether|it|is|the|answer))*)?"
_OTHER_LETTERS = rf"(?:[(\[]*[A-J][)\]]*\s*{_JOINS}\s*)*"
_NEGATED_BEFORE = re.compile(rf"(?:{_NOT}){_TO_THINK}\s*{_OF_CHOICES}{_OTHER_LETTERS}[(*\[$]*$", re.IGNORECASE)
_SEEMS = r"(?:is|are|was|were|look|looks|seems?)\s+(?:\w+ly\s+|also\s+|both\s+|all\s+)?"
_WRONG = "not|wrong|incorrect|false|too|impossible|invalid|ruled|eliminated|excluded|out|mistaken"
_IS_NOT = "isn['’]t|aren['’]t|can(?:not|['’]t)|does(?:n['’]t| not)|do(?:n['’]t| not)|(?:has|have|gives?) the wrong"
_WRONG_CHINESE = r"(?:选项|项)?(?:都|均)?(?:不(?!是\s*[(\[]?[A-J])|错|是错)"
_NEGATED_AFTER = re.compile(
    rf"{_AND_MORE}*[)\]]*\s*(?:\?|{_SEEMS}(?:{_WRONG})\b|{_IS_NOT}|{_WRONG_CHINESE})", re.IGNORECASE
)
_TURNS = (
    r"so|thus|hence|therefore|but|no|not|wait|actually|reflection|instead|rather|mean|meant|correct(?:ed|ing|ion)"
    r"|sorry|finally|final|however|re-?\w*check\w*|recomput\w*|oops|mistake|conclu\w+|then|better|now"
)
_CHANGES = re.compile(rf"\b(?:{_TURNS})\b|故|所以|因此|应", re.IGNORECASE)


def split_choice(text: str) -> tuple[str | None, str]:
    """The letter at the head, in upper case, and the text after it: `B. red` → ("B", "red"); (None, text): none.

    None, too, for a list of the options, `(A) red (B) blue`, for a letter that is denied, `(A) is wrong`, and where the
    text after it chooses another.
    """
    if match := _SINGLE.fullmatch(text):
        return match.group(1).upper(), ""
    if match := _WITH_TEXT.fullmatch(text):
        letter = next(group for group in match.groups()[:5] if group).upper()
        said = match.group(6).strip()
        following = LETTERS[LETTERS.find(letter) + 1 :][:1]
        listed = following and following in _LISTED.findall(said)
        if not listed and not _NEGATED_AFTER.match(" " + said) and in_prose(said, least=2) in (None, letter):
            return letter, said
    return None, text


def many(text: str) -> frozenset[str] | None:
    """The letters of `ACD`, `A, C and D`, `(A)(C)`; None: something else, or a letter twice."""
    match = _MANY.fullmatch(text)
    return _each_once(match.group(1)) if match else None


def many_in_prose(text: str) -> frozenset[str] | None:
    """The last letters that a sentence chooses together: `Options A and C`, `A and C are correct`, `故选ABD`."""
    found = [match for match in _MANY_IN_PROSE.finditer(text) if not _is_wrong(text, match)]
    return _each_once(found[-1].group(1) or found[-1].group(2)) if found else None


def _is_wrong(text: str, match: re.Match) -> bool:
    before = text[max(0, match.start() - 40) : match.start()]
    return bool(_NEGATED_BEFORE.search(before) or _NEGATED_AFTER.match(text, match.end()))


def _each_once(members: str) -> frozenset[str] | None:
    letters = re.findall("[A-J]", members)
    return frozenset(letters) if len(set(letters)) == len(letters) > 1 else None


def in_prose(text: str, least: int = 1) -> str | None:
    """The letter that a sentence or a text chooses: `so B`, `option B`, `B is correct`, `I pick B`, `It must be (B).`

    Of several the most strongly stated counts, and of two of these the later one where the text says that it changes
    its mind or concludes. A letter needs such a context: `25 °C`, `x^2 + C`, `vitamin C` and `A is wrong` choose none.
    None: the text chooses no letter, or two side by side. `least`: the strength from which a letter counts, 1 to 3.
    """
    labels = frozenset(_LISTED.findall(text))
    found = [
        (strength, match.start(), match.end(), match.group(2))
        for match in _LETTER.finditer(text)
        if (strength := _strength(text, match, labels)) >= least and not _is_negated(text, match)
    ]
    strongest = max((strength for strength, *_ in found), default=0)
    chosen: tuple[int, str] | None = None
    for strength, start, end, letter in found:
        if strength < strongest:
            continue
        if (more := _GROUP.match(text, end)) and not _NEGATED_BEFORE.search(text[: more.end() - 1]):
            return None  # "A or B" picks none
        if chosen and letter != chosen[1] and not _CHANGES.search(text, chosen[0], start):
            return None
        chosen = end, letter
    return chosen[1] if chosen else None


_DENIED_OPTION = re.compile(rf"(?:{_NOT}|\bno|没有|非)\s*(?:\w+\s+){{0,2}}$", re.IGNORECASE)


def option_in(sentence: str, options: Sequence[str]) -> str | None:
    """The one option whose text a sentence says and does not deny; None: none of them, or several.

    An option within a longer one that is said, too (`red` of `dark red`), does not count.
    """
    clause = re.split(r"\b(?:so|thus|hence|therefore)\b|所以|因此", sentence)[-1]
    return _one_said(clause, options) or _one_said(sentence, options)


def _one_said(sentence: str, options: Sequence[str]) -> str | None:
    said = []
    for option in sorted({option.strip() for option in options}, key=len, reverse=True):
        edges = [r"(?<!\w)" if option[:1].isascii() else "", r"(?!\w)" if option[-1:].isascii() else ""]
        found = re.search(edges[0] + re.escape(option) + edges[1], sentence, re.IGNORECASE) if len(option) > 1 else None
        within = any(option.lower() in longer.lower() for longer in said)
        if found and not within and not _DENIED_OPTION.search(sentence[: found.start()]):
            said.append(option)
    return said[0] if len(said) == 1 else None


def _is_negated(text: str, match: re.Match) -> bool:
    before = text[max(0, match.start() - 80) : match.start()] + match.group(1)
    return bool(_NEGATED_BEFORE.search(before) or _NEGATED_AFTER.match(text, match.end()))


def _strength(text: str, match: re.Match, labels: frozenset[str]) -> int:
    """How strongly a letter is chosen: 3 stated as the answer, 2 chosen, 1 standing as a choice, 0 no choice."""
    before, end = text[max(0, match.start() - 80) : match.start()], match.end()
    marked = bool(match.group(1) and match.group(3)) and match.group(1) != "$"
    bare_pronoun = match.group(2) == "I" and not marked
    if _STATED_AFTER.match(text, end) or (_STATED_BEFORE.search(before) and _ENDS.match(text, end)):
        return 3
    if bare_pronoun:
        return 0
    if _CHOSEN_AFTER.match(text, end) or (_CHOSEN_BEFORE.search(before) and _ENDS.match(text, end)):
        return 2
    if marked or (_NAMED_BEFORE.search(before) and _ENDS.match(text, end)):
        return 1
    if _is_listed(text, match, labels):
        return 0
    at_start = re.search(r"\A\s*(?:[A-Za-z]+ly,?\s+)?$", before) if match.start() <= 80 else None
    at_start = at_start or _CLAUSE_BEFORE.search(before)
    return 1 if at_start and _ENDS_CLAUSE.match(text, end) else 0


def _is_listed(text: str, match: re.Match, labels: frozenset[str]) -> bool:
    """Is it one of the labels of a list of options, `A. 1 B. 2 C. 3`?"""
    place = LETTERS.find(match.group(2))
    beside = set(LETTERS[max(0, place - 1) : place] + LETTERS[place + 1 : place + 2])
    label = _LISTED.match(text, match.start()) is not None and text[match.end() : match.end() + 20].strip(".): ") != ""
    return label and not beside.isdisjoint(labels)
