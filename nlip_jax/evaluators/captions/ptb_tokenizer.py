"""The COCO protocol's tokenizer: Penn Treebank tokens in lower case, without punctuation.

The protocol runs Stanford's PTBTokenizer (CoreNLP 3.4.1, `-preserveLines -lowerCase`) and drops a
list of punctuation marks. This is a tokenizer of our own that gives the same tokens for captions,
without Java: of all rules that match at a place the longest match wins, the first of equals.
Chen et al. 2015, Microsoft COCO captions: data collection and evaluation server, section 3.
"""

import re
from collections.abc import Iterable

from nlip_jax.evaluators.captions.ptb_words import (
    ABBREVIATIONS,
    BEFORE_NUMBERS,
    NOT_IN_CAPITALS,
    PARTS,
    STARTERS,
    WITH_APOSTROPHE,
)

# What the protocol drops. Brackets are not among them: the list has -LRB- in capitals, and what it
# is compared with is in lower case by then.
DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

_SPELLED = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "¢": "cents",
    "£": "#",
    "€": "$",
    "¤": "$",
    "₠": "$",
    "½": "1/2",
    "¼": "1/4",
    "¾": "3/4",
    "⅓": "1/3",
    "⅔": "2/3",
}
_QUOTES = str.maketrans(
    dict.fromkeys("\u2018\u201b\u2039", "`")
    | dict.fromkeys("\u2019\u203a", "'")
    | dict.fromkeys("«\u201c", "``")
    | dict.fromkeys("»\u201d", "''")
)
_NO_BREAK = "\u00a0"  # joins what is one token in spite of a space

# --- Characters -----------------------------------------------------------------------------------
_SYMBOLS = (
    "$%&;=\\\\^|~\u00a1\u00a5-\u00a9\u00ac\u00ae-\u00b1\u00b4\u00b6-\u00b8\u00bf\u00d7\u00f7\u037e\u0387\u0589\u05be\u05c0\u05c3\u05c6\u05f3\u05f4"
    "\u0600-\u0603\u0606-\u060c\u0614\u061b\u061e\u061f\u066a\u066d\u06d4\u0964\u0965\u0e3f\u0e4f"
    "\u1fbd\u2016\u2017\u2020-\u2023\u2030-\u2038\u203b\u203e-\u2042\u2044\u207a-\u207e"
    "\u208a-\u208e\u20a4\u2100\u2101\u2103-\u2106\u2108\u2109\u2114\u2116-\u2118\u211e-\u2123\u2125"
    "\u2127\u2129\u212e\u213a\u213b\u2140-\u2144\u214a-\u214d\u214f\u2155-\u215e\u2190-\u2bff"
    "\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0\uffe1"
    "\uffe5\uffe6"
)
# Signs and numerals that Python takes for parts of words and the protocol does not know.
_NO_LETTERS = (
    "_²³¹¼½¾\u2070\u2074-\u2079\u2080-\u2089\u2100-\u2101\u2150-\u218b\u2460-\u24b5\u24ea-\u24ff"
    "\u2776-\u2793\u3007\u3021-\u3029\u3038-\u303a\u3192-\u3195\u3220-\u33ff\U00010000-\U0010ffff"
)
_L = rf"(?:[^\W\d{_NO_LETTERS}][\u0300-\u036f\u0900-\u0903\u093a-\u094f]*)"  # a letter, and accents
_D = r"\d"
_LD = rf"(?:{_L}|\d)"
_APOS = "['\u2019]"
_HYPHEN = "[-\u058a\u2010\u2011]"
_END = r"(?![^\W_])"  # no letter or digit follows

# --- Rules ----------------------------------------------------------------------------------------
# A token is what a rule matches, or each of its groups where it has some. What the group "rest"
# holds counts for the length of the match, but the next token begins there.


def _words(words: Iterable[str]) -> str:
    """Any of these words, the longest first, with either apostrophe."""
    longest_first = sorted(words, key=len, reverse=True)
    return "|".join(re.escape(word).replace("'", _APOS) for word in longest_first)


_HYPHENED = rf"{_LD}+(?:(?:{_HYPHEN}|_){_LD}+)*"
_ELIDED = rf"(?:[dol]{_APOS}{_LD}{_LD}+|{_LD}+)(?:{_HYPHEN}(?:[dol]{_APOS}{_LD}{_LD}+|{_LD}+))*"
_SLASHED = r"[a-z0-9]+(?:-[a-z]+){0,2}(?:\\?/[a-z0-9]+(?:-[a-z]+){0,2}){1,2}"
_CLITIC = rf"{_APOS}(?:s|d|m|ll|re|ve)(?!{_L})"
_NUMBER = r"(?:\d*(?:[.:,\u2044]\d+)+|\d+)"
_HOST = r"""(?:[^\s"`'<>|.!?(){},\-_$/:;@]+\.)+"""
_URL_TAIL = r"""[^\s"<>|()]+[^\s"<>|.!?(){},\-]"""

_WORD_RULES = [  # begin with a letter or a digit
    *(rf"({first})({second})(?![-_/]?[a-z0-9]|{_CLITIC})" for first, second in PARTS.values()),
    _HYPHENED,
    _ELIDED,
    rf"{_L}+(?P<rest>{_CLITIC})",  # dog 's
    rf"{_L}+[aeiouy]{_APOS}(?-i:[aeiouA-Z]){_L}*",  # jusqu'au
    rf"n{_APOS}{_L}{_L}+",
    _words(w for w in WITH_APOSTROPHE if w[0] != "'"),
    r"[a-z]+?(?P<rest>n['\u2019`\u2018]t)",  # do n't
    r"n['\u2019`\u2018]t",
    rf"y{_APOS}(?P<rest>{_L}+)",  # y' all
    rf"more(?P<rest>{_APOS}n){_END}",
    # Full stops
    r"[a-z](?:\.[a-z])*\.",  # a.m.
    rf"(?:{_words(ABBREVIATIONS)})\.",
    rf"(?:{_HYPHENED}|{_ELIDED}|{_SLASHED})\.(?P<rest>[,;:\u3001])",
    rf"(?:{_words(BEFORE_NUMBERS)})\.(?P<rest> ?\d)",
    rf"{_L}{_LD}*(?:[.!?]{_L}{_LD}*)+",  # word.word
    rf"[a-z0-9][a-z0-9.,]*(?:{_HYPHEN}(?:[a-z](?:\.[a-z])+\.|[a-z0-9]+))+",  # U.S.-based
    # Numbers
    _NUMBER,
    r"\d{1,4}[- ]\d{1,4}/\d{1,4}",  # 1 1/2
    r"(?:\d{2,4}[- \u00a0])?\d{2,4}[- \u00a0]\d{3,4}[- \u00a0]?\d{3,5}",  # telephone
    _SLASHED,  # and/or, 12/25/2010
    # Addresses
    rf"https?://{_URL_TAIL}",
    r"""www\.(?:[^\s"<>|.!?(){},/]+\.)+[a-z]{2,4}""",
    rf"{_HOST}(?:com|net|org|edu)(?:/{_URL_TAIL})?",
    r"""[a-z0-9][^\s"<>|()]*@(?:[^\s"<>|().]+\.)*[^\s"<>|().]+""",
    r"c\+\+|[cf]#",
]
_OTHER_RULES = [
    rf"[-+]?{_NUMBER}",
    r"-[lr][rsc]b-",
    r"(?:\(\d{2,3}\)[ \u00a0]?|\+\+?(?:\d{2,4}[- \u00a0])?\d{2,4}[- \u00a0])"
    r"\d{3,4}[- \u00a0]?\d{3,5}",  # telephone
    r"@[a-z_][a-z0-9_]*",
    rf"#{_L}+",
    # Apostrophes
    _CLITIC,
    _words(w for w in WITH_APOSTROPHE if w[0] == "'"),
    rf"{_APOS}n(?!{_LD})",
    rf"{_APOS}(?:\d0s|\d\d(?!\S))",  # '90s
    r"('t)(is|was)",
    # Signs
    r"<[/!?]?[a-z](?:[^>\"<\n]|\"[^\"\n]*\")*>",  # mark-up
    r"&(?:amp|lt|gt|quot|apos|nbsp|ndash|mdash);|&#\d+;",
    r"[<>]?[:;=](?-i:[-o*']?[()DdPpO\\{@|\[\]])(?![a-z0-9])",  # smileys
    r"[-^=~<>']_[-^x=~<>']|\([-^x=~<>'][_.\-]?[-^x=~<>']\)",
    r"(?:\. ){2,}\.|\.{3,}|\.",
    r"-{5,}|-{1,4}|[\u2013-\u2015\u0096\u0097]",
    r"[!?]+|\*+|#+|_+|@+|<<|>>|<|>|\"|``|`|''|[,:;/+'(){}\[\]\u2026]",
    r"[«»\u2018\u2019\u201b-\u201d\u2039\u203a]+",
    r"[¹²³\u2070\u2074-\u2079\u2080-\u2089]+|\u201a+|\u201e+|\u201f+",
    rf"[{_SYMBOLS}¢£€¤₠½¼¾⅓⅔]",
]
_CASED_RULES = [
    r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+",  # AT&T
    r"[A-Z]*\$",
    rf"[A-Z]{_APOS}[A-Za-z]{_L}+",  # O'Neil, J'ai
    rf"[A-Za-z](?P<rest>\. (?:{_words((*STARTERS, *map(str.upper, STARTERS)))})(?:\s|$))",
]
_WORDS = (*(re.compile(r, re.IGNORECASE) for r in _WORD_RULES), *map(re.compile, _CASED_RULES))
_OTHERS = tuple(re.compile(rule, re.IGNORECASE) for rule in _OTHER_RULES)

_CAPITALS = re.compile(rf"(?:{'|'.join(NOT_IN_CAPITALS)})\.")
_ENTITIES = {
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
    "&quot;": "''",
    "&apos;": "'",
    "&nbsp;": "",
    "&ndash;": "--",
    "&mdash;": "--",
}
_ENTITY = re.compile("|".join(_ENTITIES), re.IGNORECASE)
_SPELL = re.compile("[" + re.escape("".join(_SPELLED)) + "]")
_ELLIPSIS = re.compile(r"[. \u2026]+")
_CLITIC_ONLY = re.compile(r"\u2019(?:s|d|m|ll|re|ve)|n\u2019t", re.IGNORECASE)
# Other spellings of what the protocol drops, for it writes " as `` or '' and dashes as --.
_SPELLINGS = frozenset('\u2013\u2014\u2015\u0096\u0097"') | {"---", "----"}

# Most of a caption: plain words, which one rule alone matches.
_PLAIN_RUN = re.compile(r"(?:[A-Za-z]+,? +)*")
_PLAIN_END = re.compile(r"([A-Za-z]{2,})? ?[.!?]?\s*")


def tokenize(caption: str) -> str:
    """The tokens of a caption with a space between.

    A token that holds a space, as "1 1/2" does, holds a no-break space instead, as in the protocol.
    """
    text = caption.replace("\u00ad", "")
    run = _PLAIN_RUN.match(text)
    tokens = run[0].replace(",", " ").lower().split()
    if not PARTS.keys().isdisjoint(tokens):
        tokens = [part for token in tokens for part in PARTS.get(token, (token,))]
    rest = _PLAIN_END.fullmatch(text, run.end())
    word = rest[1].lower() if rest and rest[1] else ""
    if rest and word not in ABBREVIATIONS and word not in PARTS:
        return " ".join([*tokens, word] if word else tokens)
    return " ".join([*tokens, *_lex(text, run.end())])


def _lex(text: str, place: int) -> list[str]:
    """All tokens from a place on, found by the rules."""
    tokens = []
    while place < len(text):
        first = text[place]
        best, end = None, place
        for rule in _WORDS if _begins_word(first) else _OTHERS:
            match = rule.match(text, place)
            if match and match.end() > end and not _CAPITALS.fullmatch(match[0]):
                best, end = match, match.end()
        if best is None:  # white space, and what no rule knows
            place += 1
            continue
        rest = best.span("rest")[0] if "rest" in best.re.groupindex else -1
        place = end if rest < 0 else rest
        parts = [part for part in best.groups() if part] if rest < 0 else []
        tokens += filter(None, map(_spell, parts or [text[best.start() : place]]))
    return tokens


def _begins_word(text: str) -> bool:
    return text[:1].isalpha() or text[:1].isdecimal()


def _spell(token: str) -> str:
    """How a token is written; empty for one that is dropped."""
    if _CLITIC_ONLY.fullmatch(token):
        return token.replace("\u2019", "'").lower()
    if "&" in token:
        token = _ENTITY.sub(lambda match: _ENTITIES[match[0].lower()], token)
    if not _begins_word(token):  # in addresses brackets stay
        token = _SPELL.sub(lambda match: _SPELLED[match[0]], token)
    token = token.lower()
    if _QUOTES.keys() >= set(map(ord, token)):
        token = token.translate(_QUOTES)
    if token in DROPPED or token in _SPELLINGS or _ELLIPSIS.fullmatch(token):
        return ""
    return token if token.isascii() and " " not in token else token.replace(" ", _NO_BREAK)
