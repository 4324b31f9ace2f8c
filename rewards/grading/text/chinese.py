"""Chinese answers: what introduces one, numerals, units and words for "and" and "or", in the spelling of the others.

Chinese has no spaces, so that a word is found by longest match; a text in which something else is left stays as it is.
"""

import re

from rewards.grading.text.units import SCALES

_HAN = re.compile(r"[\u4e00-\u9fff]")
_SIMPLIFIED = str.maketrans("選擇項為個對錯約與萬億兩確應該總結時釐壓", "选择项为个对错约与万亿两确应该总结时厘压")

_UNITS = {
    **{"米": "m", "公尺": "m", "千米": "km", "公里": "km", "分米": "dm", "厘米": "cm", "公分": "cm", "毫米": "mm"},
    **{"微米": "um", "纳米": "nm", "克": "g", "千克": "kg", "公斤": "kg", "斤": "jin", "毫克": "mg", "吨": "t"},
    **{"小时": "h", "时": "h", "分钟": "min", "秒": "s", "秒钟": "s", "毫秒": "ms", "天": "days", "日": "days"},
    **{"周": "weeks", "星期": "weeks", "个月": "months", "年": "years", "岁": "years"},
    **{"升": "L", "毫升": "mL", "公顷": "ha", "亩": "mu", "度": "degrees", "摄氏度": "celsius", "弧度": "rad"},
    **{"元": "yuan", "角": "jiao", "块": "yuan", "块钱": "yuan", "元钱": "yuan", "人民币": "yuan", "美元": "dollars"},
    **{"欧元": "euros", "英镑": "£", "牛": "N", "牛顿": "N", "焦": "J", "焦耳": "J", "千焦": "kJ"},
    **{"瓦": "W", "瓦特": "W", "千瓦": "kW", "帕": "Pa", "帕斯卡": "Pa", "千帕": "kPa", "伏": "V", "伏特": "V"},
    **{"安": "A", "安培": "A", "欧": "ohm", "欧姆": "ohm", "赫兹": "Hz", "摩尔": "mol", "开尔文": "K"},
}
for _length in ("米", "千米", "公里", "分米", "厘米", "毫米", "公分", "公尺"):
    _UNITS |= {"平方" + _length: f"{_UNITS[_length]}^2", "立方" + _length: f"{_UNITS[_length]}^3"}
# What is counted follows these words; all are the unit 个. 分 is a minute after an hour only, else a point.
_COUNTERS = frozenset("个只条张本支件名位颗棵种次道根段人倍分辆台头匹朵座间层排行列组对双套盒箱袋瓶杯片页题块")
_WORDS = sorted([*_UNITS, *_COUNTERS, *SCALES], key=len, reverse=True)
_WORDS = [word for word in _WORDS if _HAN.match(word)]
_ONE_WORD = re.compile("|".join(map(re.escape, _WORDS)))
_AFTER_NUMBER = re.compile(
    r"(?:(?<=[0-9)}\]])|(?<=\\pi))\s*((?:(?:(?!或|和|与|且|及|以及|并且)[\u4e00-\u9fff])+\s*[/·]?\s*)+)"
)
_ARC = re.compile(r"([0-9]+)度([0-9]+)分(?:([0-9]+)秒)?")

_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_PLACES = {"十": 10, "百": 100, "千": 1000}
_NUMERAL = rf"[{''.join(_DIGITS)}十百千万亿]"
_CLEAR_COUNTERS = "[个只张本支件名位颗棵种辆台条]"
_COUNTED = re.compile(rf"({_NUMERAL}+)((?:{'|'.join(_WORDS)})?|{_CLEAR_COUNTERS}[\u4e00-\u9fff]{{1,6}})")
_FRACTION = re.compile(rf"({_NUMERAL}+)分之({_NUMERAL}+)")
_TIMES = "小时|分钟|秒钟|星期|周|天|年|月"
_AND_A_HALF = re.compile(rf"(?:({_NUMERAL}+|[0-9]+)(?:个(?=半)|({_TIMES})(?=半$)))?半个?({_TIMES})?")

_LETTERS = r"\(?[A-J]\)?(?:(?:\s*(?:,|和|与|及|以及|and)\s*)?\(?[A-J]\)?)*"
_CHOICE = re.compile(rf"(?:选项|选择|选|第)?\s*:?\s*({_LETTERS})\s*(?:选项|项)?(?:(?:是|为|都|均)?(?:正确|对)的?)?")
_BEFORE_ANSWER = (
    r"解|答|故|所以|因此|综上所述|综上|从而|即|则|本题|此题|最终|最后|我|应|应该|的|正确|参考|标准|[\[\]:,\s]"
)
_ANSWER = r"(?:答案|正确选项|结果|选择|选(?!项)|应填|填)(?:应该|应|分别)?(?:是|为|选|填)?"
_INTRODUCED = re.compile(rf"(?:(?:{_BEFORE_ANSWER})*{_ANSWER}[\]:,\s]*)+")
_WEAK_WORDS = (
    r"解得|解|答|故|所以|因此|综上所述|综上|从而|于是|可得|可知|即|则|得到|得|等于|分别|是|为|有|共计|共有|一共|总共|共"
    r"|约|大约|大概|需要|需|用了|用时|花了|近似|正好|恰好|[:,\s]"
)
_WEAK = re.compile(rf"(?:{_WEAK_WORDS})++(?=[^\u4e00-\u9fff]|{_NUMERAL}|半)")
_NAMED = re.compile(
    r"(?!.*[不非没])[\u4e00-\u9fff]{1,10}\s*(?:是|为|等于|有|共|[长宽高重深厚远]|=|:)\s*(?=[^\u4e00-\u9fff\s])"
)
_BEFORE_CIRCLED = r"其中|说法|结论|命题|判断|序号|正确|错误|不|符合题意|的|是|有|为|:|\s"
_CIRCLED = r"\\textcircled\{[0-9]+\}"
_BETWEEN_CIRCLED = r"(?:[\s,;和与及]*|\s*(?:\\to|-+>?|=+>)\s*)"
_CIRCLED_ONES = re.compile(
    rf"(?:{_BEFORE_CIRCLED})*({_CIRCLED}(?:{_BETWEEN_CIRCLED}{_CIRCLED})*)\s*(?:都|均|是|正确|的)*"
)
_JOINED = re.compile(r"(?<![\u4e00-\u9fff])\s*(或者|或|并且|且|以及|和|与|及)\s*(?![\u4e00-\u9fff\s])")
_OR = ("或者", "或")

_THIS = r"(?:这个|这种|这句|该|此|这|本题|题目|上述)?(?:的)?(?:说法|结论|命题|判断|表述|陈述|观点|看法|句话|话)?"
_YES = r"正确|对|是|真|没错|\\sqrt|✓|✔"
_NO = r"不正确|错误|错|不对|不是|否|假|\\times|✗|✘"
_YES_OR_NO = re.compile(rf"{_THIS}(?:是|为)?(?:(?P<no>{_NO})|(?P<yes>{_YES}))(?:的|了)?(?=$|[,.;:!?\s])")


def yes_or_no(text: str) -> bool | None:
    """True where a text opens with 对, 是, 正确 or √ (`对，因为…`, `该说法是正确的`), False: 错, 否 or ×, else None."""
    match = _YES_OR_NO.match(_without_brackets(text))
    return None if match is None else match["yes"] is not None


def is_yes_or_no(text: str) -> bool:
    """Is the text nothing but such a word?"""
    return re.fullmatch(rf"{_YES}|{_NO}", _without_brackets(text)) is not None


def _without_brackets(text: str) -> str:
    return text.translate(_SIMPLIFIED).strip("()[]（） ")


_OPTION = r"(?=\s*+(?:[:：]\s*+)?[(（【]?[A-JＡ-Ｊ](?![A-Za-z]{2}))"
_STATEMENTS = (
    (re.compile(r"[【\[](?:参考|正确)?(?:答案|答)[】\]]\s*[:：]?"), "答案:"),
    (re.compile(r"[【\[](?:解析|分析|详解|解答|点评|考点|解题思路)[】\]]"), "。\n"),
    (
        re.compile(r"(?:(?:正确|最终|标准|参考)?答案|(?:正确|符合题意)的?选项|结果)(?:应该|应)?(?:选|是|为|:|：)+"),
        "答案:",
    ),
    (re.compile(rf"(?<![不未非])(?:应该|应|故|所以|因此|本题)?(?:选择|选)(?!项){_OPTION}"), "答案:"),
    (re.compile(r"(?:^|(?<=[\s。；;，,]))(?:答|应填|故填)[:：]"), "答案:"),
    (re.compile(rf"(?<![不非])(?:正确|符合题意)的(?:只有|就是|应该是|是){_OPTION}"), "答案:"),
)
_RIGHT = re.compile(
    r"(?<![A-Za-z0-9])([A-J](?:[、,，和与及 ]{0,3}[A-J]){0,9})\s*+(?:(?:选项|项)\s*+)?"
    r"(?:是|为|都|均)?(?:正确|符合题意)(?!的有)"
)
_SAID = "".join(filter(_HAN.match, {*"".join(_WORDS), *_DIGITS, *_PLACES, *"或和且分之半"}))
_AFTER_WORDS = r"(?:[\u4e00-\u9fff,，]|^)(?<![第不非没期周拜])\s*[:：]?\s*"
_BEGINS = rf"(?:[^\u4e00-\u9fff\s,，:：]|{_NUMERAL}|半(?={_TIMES}|个))"
_GOES_ON = rf"(?:[^\u4e00-\u9fff，]|[{_SAID}])*"  # no character is in both, or a search would take for ever
_WHAT_IS_COUNTED = rf"(?:(?<={_CLEAR_COUNTERS})[\u4e00-\u9fff]{{1,6}})?"
_CONCLUSION = re.compile(rf"{_AFTER_WORDS}({_BEGINS}{_GOES_ON}{_WHAT_IS_COUNTED})$")
_NAME = r"[A-Za-z][₀-₉0-9_{}]*\s*="
_SEVERAL = re.compile(
    rf"(?:[\u4e00-\u9fff:：]|^)\s*((?:{_NAME}[^，。=\u4e00-\u9fff]+[，,、]\s*)+{_NAME}[^，。=\u4e00-\u9fff]+)$"
)
_PLAIN = r"-?[0-9]+(?:[./][0-9]+)?"
_NUMBERS = re.compile(rf"[\u4e00-\u9fff:：]\s*((?:{_PLAIN}\s*[，,]\s*)+{_PLAIN}\s*[\u4e00-\u9fff]{{0,3}})$")
_LIKEWISE = re.compile(  # 每支钢笔8元，每本笔记本5元
    r"(?:^|[，,]|因此|所以|故|即|则)([\u4e00-\u9fff])[^，,0-9]{1,12}([0-9.]+[^，,0-9]{0,4})[，,]\1[^，,0-9]{1,12}([0-9.]+[^，,0-9]{0,4})$"
)
_UNIT_IN_BRACKETS = re.compile(rf"(?<=[0-9)}}π])\s*[（(]((?:{'|'.join(_WORDS)}){{1,2}})[）)]")  # 160（立方厘米）
_WITH_REASON = re.compile(r"(?:[^，,]*[，,])?([^，,]+)[，,]\s*(?:因为|由于|理由)[^\n]*")
_IS = re.compile(r"(?:(?<![不还])(?:是|为|叫做|属于)|(?:显得|感到|看起来)很?|[说做][得的])([\u4e00-\u9fff]{1,12}?)的?$")
_BRACKETED = re.compile(r"[（(][^（()）\n]{1,40}[）)]")
_ASCII = str.maketrans("（），", "(),")
MAX_CONCLUSION = 200  # characters of the last sentence


def with_statements(response: str) -> str:
    """A response whose Chinese statements of its answer all begin with `答案:`; without Chinese it is as it was.

    `故选：ABD`, `【答案】B`, `正确选项为B和D`; without these `A选项正确`, and what the last sentence ends
    with: a formula, a number (`面积为25平方米。`) or a word (`汽车是红色的。`).
    """
    if not _HAN.search(response):
        return response
    text = _UNIT_IN_BRACKETS.sub(r"\1", response.translate(_SIMPLIFIED))
    text = _BRACKETED.sub(lambda match: match.group().translate(_ASCII), text)
    for pattern, form in _STATEMENTS:
        text = pattern.sub(form, text)
    if "答案" in text or r"\boxed" in text or "<answer>" in text:
        return text
    if right := _RIGHT.findall(text):
        return text + "\n答案:" + ", ".join(dict.fromkeys(right))
    if yes_or_no(text.replace("，", ",").replace("。", ".")) is not None:
        return text
    last = re.split(r"[。；;\n]", text.rstrip("。；;.．!！ \n"))[-1][-MAX_CONCLUSION:]
    if (judged := _judged(last)) is not None:
        return f"{text}\n答案:{judged}"
    if both := _LIKEWISE.search(last):
        return f"{text}\n答案:{both[2]}, {both[3]}"
    said = _SEVERAL.search(last) or _NUMBERS.search(last) or _CONCLUSION.search(last) or _IS.search(last)
    return text if said is None or not re.search(r"\w", said[1]) else f"{text}\n答案:{said[1]}"


_WHOSE = re.compile(r"^(?:所以|因此|故|可见)?[，,]?(?:[\u4e00-\u9fff]{1,6}的(?=说法|结论|判断|看法|观点))?")


def _judged(sentence: str) -> str | None:
    """The 对 or 错 of a sentence that says no more than that, and why: `所以这句话是对的，因为…`; else None."""
    clause = match[1] if (match := _WITH_REASON.fullmatch(sentence)) else sentence
    said = _YES_OR_NO.fullmatch(_WHOSE.sub("", clause.strip()))
    return None if said is None else "错" if said["no"] else "对"


_CIRCLED_SIGNS = re.compile("[①-⑳]{2,20}")


def in_order(gold: str) -> str:
    """A gold of circled numbers with arrows between them where they do not ascend: `②①③` asks for this order."""
    if not _CIRCLED_SIGNS.fullmatch(gold.strip()) or list(gold.strip()) == sorted(gold.strip()):
        return gold
    return "→".join(gold.strip())


def in_common_spelling(text: str) -> str:
    r"""An answer whose Chinese numerals, units, connectives and introduction are those of other languages.

    `故选：B和D` → `B and D`, `共10万元` → `10 万 yuan`, `2米5` → `2.5 m`, `三个` → `3 个`, `①③` → `1, 3`, and in
    this order `②→①→③` → `(2, 1, 3)`. A text without Chinese is returned as it is; so is what is left of prose.
    """
    if match := _CIRCLED_ONES.fullmatch(text):
        return _circled(match[1])
    if not _HAN.search(text):
        return text
    text = text.strip().translate(_SIMPLIFIED).replace("【", "[").replace("】", "]").rstrip(" .。")
    text = _UNIT_IN_BRACKETS.sub(r"\1", text)
    if match := _INTRODUCED.match(text):
        text = text[match.end() :] or text
    if match := _CHOICE.fullmatch(text):
        return re.sub("和|与|及|以及", " and ", match[1])
    text = _WEAK.sub("", text, count=1) if _WEAK.match(text) else text
    text = _NAMED.sub("", text) if _NAMED.match(text) else text
    text = _ARC.sub(lambda arc: f"{arc[1]}^{{\\circ}}{arc[2]}'" + (f"{arc[3]}''" if arc[3] else ""), _numerals(text))
    text = _AFTER_NUMBER.sub(_measured, text).strip()
    text = re.sub(r"([0-9]+) (m|yuan) ([0-9]{1,2})$", r"\1.\3 \2", text)  # 2米5, 3块5
    text = re.sub(r"([0-9.]+) yuan ([0-9]) jiao$", r"\1.\2 yuan", text)
    return _JOINED.sub(lambda match: " or " if match[1] in _OR else " and ", text).strip()


def _circled(text: str) -> str:
    """Circled numbers as a list; in brackets, which keep the order, where arrows join them."""
    listed = ", ".join(re.findall(r"\{([0-9]+)\}", text))
    return f"({listed})" if ">" in text or r"\to" in text else listed


def _numerals(text: str) -> str:
    """`三`, `三个`, `二十一元`, `七个三角形`, `三分之一` and `两个半小时` with digits; 三角形 is a word."""
    if text == "一半":
        return r"\frac{1}{2}"
    if (match := _AND_A_HALF.fullmatch(text)) and (match[2] or match[3]) and not (match[2] and match[3]):
        count = 0 if match[1] is None else int(match[1]) if match[1].isdigit() else _value(match[1])
        return text if count is None else f"{count}.5{'个' if match[3] == '月' else ''}{match[2] or match[3]}"
    if match := re.fullmatch(f"百分之({_NUMERAL}+|[0-9.]+)", text):
        value = _value(match[1]) if _HAN.match(match[1]) else match[1]
        return text if value is None else f"{value}%"
    if match := _FRACTION.fullmatch(text):
        bottom, top = map(_value, match.groups())
        return text if bottom is None or top is None else rf"\frac{{{top}}}{{{bottom}}}"
    match = _COUNTED.fullmatch(text)
    value = _value(match[1]) if match else None
    return text if match is None or value is None else f"{value}{match[2]}"


def _value(numeral: str) -> int | None:
    """The whole number that a Chinese numeral is; None: the characters are in no such order, or too many."""
    if len(numeral) > 40:
        return None
    for word, size in (("亿", 10**8), ("万", 10**4)):
        head, found, tail = numeral.rpartition(word)
        if found:
            high, low = _value(head) if head else None, _value(tail) if tail else 0
            return None if high is None or low is None else high * size + low
    if len(numeral) > 1 and all(character in _DIGITS for character in numeral):
        return int("".join(str(_DIGITS[character]) for character in numeral)) if len(numeral) < 20 else None
    total, digit, least = 0, None, 10_000
    for character in numeral:
        if character in _PLACES:
            place = _PLACES[character]
            if place >= least or (digit is None and character != "十"):
                return None
            total, digit, least = total + (1 if digit is None else digit) * place, None, place
        elif digit:
            return None
        else:
            digit = _DIGITS[character]
    return total + (digit or 0)


def _measured(match: re.Match) -> str:
    """The Chinese words after a number: scales and units translated, a counter as 个, what is counted kept."""
    words: list[str] = []
    rest = match[1].replace("每", "/")
    while rest:
        found = _ONE_WORD.match(rest)
        if rest[0] in "/· ":
            words.append(rest[0].strip())
            rest = rest[1:]
        elif found is None or (found.group() in _COUNTERS and found.end() < len(rest)):
            # 12个苹果, 12名学生: what is counted is a unit of its own
            return " " + rest[found.end() if found else 0 :] + " " if not words else match.group()
        else:
            words.append(found.group())
            rest = rest[found.end() :]
    translated = [_translated(word, words[:index], match) for index, word in enumerate(words)]
    return " " + re.sub(r"\s*([/·])\s*", r"\1", " ".join(word for word in translated if word)) + " "


def _translated(word: str, before: list[str], match: re.Match) -> str:
    if word == "分" and re.search(r"时\s*[0-9.]+$", match.string[: match.start()]):
        return "min"
    if word == "块" and not before:
        return "yuan"
    if word in _COUNTERS:
        alone = match.end() == len(match.string) and not re.search("[或和与及且,;]", match.string)
        return "个" if alone else ""
    return _UNITS.get(word, word)
