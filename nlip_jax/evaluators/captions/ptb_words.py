"""Words that the Penn Treebank tokenizer of the COCO protocol treats on their own.

Found by trying words in that tokenizer; compared with it in the tests.
"""


def _list(words: str) -> tuple[str, ...]:
    return tuple(words.split())


# Keep their full stop wherever it stands.
ABBREVIATIONS = frozenset(
    _list("""
    adj adm adv al ala alex apr ariz ark asst assn assoc atty aug ave bhd bldg blvd brig bros calif
    capt cf cie cmdr co col colo comdr conn corp cos cpl ct dak dec del dept det dr elec ens esq est
    etc ext feb fla fri ft ga gen gov hon ill inc ind insp intl jan jos jr jul jun kan kans ky la lt
    ltd maj mar mass md messrs mfg mich minn miss mlle mme mo mon mont mr mrs ms msgr mt natl neb
    nev nov oct okla ore pa penn pfc ph ph.d plc pres prof pte pty pvt rd rep rev rt sen sens sep
    sept seq sgt sq sr st ste supt supts tel tenn tex thu thur thurs treas tue tues univ va vs
    vt wash wed wis wm wyo
    """)
)
# Those of them that do not where they are written in capitals, but for the first letter at most.
NOT_IN_CAPITALS = frozenset({"MFG", "PTY", "PTE"})
# Keep it before a number.
BEFORE_NUMBERS = ("art", "ca", "fig", "figs", "no", "nos", "op", "pp", "prop")

# Words that begin a sentence, so that a single letter with a full stop before them ended one.
STARTERS = _list("""
    A About According After An As At But Earlier He Her Here However If In It Last Many More Mr. Now
    Once One Other Our She Since So Some Such That The Their Then There These They This We What
    When While Yet You
""")

# Several words written as one.
PARTS = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "lemme": ("lem", "me"),
    "gimme": ("gim", "me"),
    "wanna": ("wan", "na"),
}

# One word in spite of an apostrophe in it; what elision makes (l'eau) is a rule.
WITH_APOSTROPHE = _list(
    "c'est c'mon cap'n dunkin' e'er hallowe'en li'l ma'am nat'l ne'er o'clock o'er ol' "
    "s'mores somethin' 'cause 'em 'n' 'til d' j' l'"
)
