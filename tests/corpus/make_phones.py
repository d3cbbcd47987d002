#!/usr/bin/env python3
"""Makes phones.tsv: written forms of phone numbers and what otpd must read in them.

    python3 -m venv /tmp/ph
    /tmp/ph/bin/pip install phonenumbers==9.0.42
    /tmp/ph/bin/python tests/corpus/make_phones.py

The version is pinned because the metadata of phonenumbers 9.0.42 is that of
rlibphonenumber 2.2.15 (both are Google's v9.0.42); the script refuses any other.

The oracle is a second, independent port of libphonenumber: the PyPI package
`phonenumbers`. The rules of otpd on top of it: an extension makes the number
invalid, and so does a control character (Unicode category Cc) anywhere; every
blank (Unicode category Z) counts as a plain one, and none at the ends. Code points with
the property Default_Ignorable_Code_Point are left out, and a Mexican number may have the
"1" that led mobile numbers until 2019. A form with an "@" is read as an e-mail address,
and has no place here.

phones.tsv: UTF-8, lines ended by LF, tab separated, one header line, four columns:

    region    ISO alpha-2 in which a national number is read; may be empty
    written   the form as typed; may be empty, may begin or end with blanks, and
              may hold U+0085 or U+2028: split lines at LF only, and trim nothing
    expected  E.164, or the word `invalid`
    note      the kind of the form; it says how the line was made, and it is
              `expected`, not the note, that says whether the number is valid

Left out are two absurdities on which Google's own implementations differ (Java
and `phonenumbers` against C++ and rlibphonenumber): two extensions marked `/x` in
one number, and letters of a vanity number that are equal only by Unicode case
folding (long s, Turkish i).

Deterministic: choices are drawn from SHA-256 of SEED and a key (never from
`random`, whose algorithms may change), and the lines are sorted.
"""

import hashlib
import os
import re
import sys
import unicodedata

import phonenumbers as pn
from phonenumbers import PhoneNumberFormat as F
from phonenumbers import PhoneNumberType as T

VERSION = "9.0.42"
SEED = "otpd-phones-1"
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "phones.tsv")

if pn.__version__ != VERSION:
    sys.exit(f"phonenumbers {pn.__version__} is installed; {VERSION} is wanted")

rows = {}  # (region, written) -> (expected, note)


# Unicode 17.0, DerivedCoreProperties.txt: Default_Ignorable_Code_Point.
IGNORABLE = [
    (0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5),
    (0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164),
    (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
]


def is_ignorable(character):
    return any(first <= ord(character) <= last for first, last in IGNORABLE)


def without_mexican_prefix(number):
    digits = number.national_number
    if not number.extension and number.country_code == 52 and 10**10 <= digits < 2 * 10**10:
        return pn.parse(f"+52{digits - 10**10:010}")
    return number


def expected(region, written):
    if any(unicodedata.category(c) == "Cc" for c in written):
        return "invalid"
    visible = (c for c in written if not is_ignorable(c))
    plain = "".join(" " if unicodedata.category(c)[0] == "Z" else c for c in visible).strip()
    try:
        number = pn.parse(plain, region or None)
    except pn.NumberParseException:
        return "invalid"
    if not pn.is_valid_number(number):
        number = without_mexican_prefix(number)
    if number.extension or not pn.is_valid_number(number):
        return "invalid"
    return pn.format_number(number, F.E164)


def add(region, written, note):
    """The first kind under which a form comes up is the one that is kept."""
    assert not set(written) & set("\t\n\r\0"), (region, written)
    if "@" in written:
        return
    if len(written) > 250:
        note = "over-250"
    if (region, written) not in rows:
        rows[(region, written)] = (expected(region, written), note)


def draw(key, n):
    digest = hashlib.sha256(f"{SEED}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % n


def sample(key, items, k):
    ranked = sorted(items, key=lambda it: hashlib.sha256(f"{SEED}/{key}/{it}".encode()).digest())
    return ranked[:k]


def script(text, zero):
    """The ASCII digits of the text in another script."""
    return "".join(chr(ord(zero) + int(c)) if c in "0123456789" else c for c in text)


FULL_WIDTH, ARABIC, PERSIAN, DEVANAGARI, BENGALI, THAI, BOLD = "０", "٠", "۰", "०", "০", "๐", "𝟎"


def full_width(text):
    """Everything in ASCII to its full-width twin (the blank to U+3000)."""
    return "".join(
        "\u3000" if c == " " else chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text
    )


# Separators that people, word processors and phone books put between groups.
SEPARATORS = [
    ("nbsp", "\u00a0"),
    ("narrow-nbsp", "\u202f"),
    ("thin-space", "\u2009"),
    ("figure-space", "\u2007"),
    ("ideographic-space", "\u3000"),
    ("dots", "."),
    ("slashes", "/"),
    ("hyphens", "-"),
    ("en-dash", "\u2013"),
    ("em-dash", "\u2014"),
    ("minus", "\u2212"),
    ("nb-hyphen", "\u2011"),
    ("full-width-hyphen", "\uff0d"),
    ("full-width-dot", "\uff0e"),
    ("soft-hyphen", "\u00ad"),
    ("zero-width-space", "\u200b"),
    ("word-joiner", "\u2060"),
    ("tilde", "~"),
    ("spaced-hyphens", " - "),
    ("double-spaces", "  "),
    ("middle-dot", "\u00b7"),
    ("comma", ","),
    ("underscore", "_"),
]

BLANKS = [
    ("leading-blank", " ", ""),
    ("trailing-blank", "", " "),
    ("both-blanks", "   ", "  "),
    ("leading-nbsp", "\u00a0", ""),
    ("trailing-nbsp", "", "\u00a0"),
    ("bidi-marks", "\u202a", "\u202c"),
    ("bidi-marks", "\u200e", ""),
    ("bidi-marks", "\u2066", "\u2069"),
    ("byte-order-mark", "\ufeff", ""),
    ("trailing-dot", "", "."),
    ("trailing-comma", "", ","),
    ("quotes", '"', '"'),
    ("angle-brackets", "<", ">"),
    ("brackets", "[", "]"),
]

LABELS = ["tel:", "tel. ", "Tel.: ", "TEL ", "phone: ", "mob. ", "тел. ", "т. ", "моб.: ", "№ ", "☎ ", "📞"]

CONTROLS = ["\x01", "\x07", "\x08", "\x0b", "\x0c", "\x1b", "\x1f", "\x7f", "\x80", "\x85", "\x9f"]

OTHER_TYPES = [
    ("toll-free", T.TOLL_FREE),
    ("premium-rate", T.PREMIUM_RATE),
    ("shared-cost", T.SHARED_COST),
    ("voip", T.VOIP),
    ("personal", T.PERSONAL_NUMBER),
    ("uan", T.UAN),
    ("pager", T.PAGER),
    ("voicemail", T.VOICEMAIL),
]

REGIONS = sorted(pn.SUPPORTED_REGIONS)
NON_GEO = sorted(pn.COUNTRY_CODES_FOR_NON_GEO_REGIONS)


def metadata(region):
    return pn.PhoneMetadata.metadata_for_region(region, None)


def idd(region):
    """A prefix that region dials before a foreign number, as one would write it."""
    md = metadata(region)
    if md.preferred_international_prefix:
        return md.preferred_international_prefix
    pattern = md.international_prefix or ""
    for p in [pattern, "00", "011", "001", "0011", "010", "119", "99900", "000", "009"]:
        if re.fullmatch(r"[0-9~]+", p) and re.fullmatch(pattern, p.replace("~", "")):
            return p
    return None


def region_rows(region):
    md = metadata(region)
    cc = pn.country_code_for_region(region)
    mobile = pn.example_number_for_type(region, T.MOBILE)
    fixed = pn.example_number_for_type(region, T.FIXED_LINE)
    main = mobile or fixed or pn.example_number(region)
    nsn = pn.national_significant_number(main)
    e164 = pn.format_number(main, F.E164)
    inter = pn.format_number(main, F.INTERNATIONAL)
    national = pn.format_number(main, F.NATIONAL)
    rfc = pn.format_number(main, F.RFC3966)
    other = REGIONS[(REGIONS.index(region) + 1 + draw(f"other/{region}", len(REGIONS) - 1)) % len(REGIONS)]
    while pn.country_code_for_region(other) == cc:
        other = REGIONS[(REGIONS.index(other) + 1) % len(REGIONS)]

    # The five formats of the library.
    add(region, e164, "e164")
    add("", e164, "e164-no-region")
    add(region, inter, "international")
    add("", inter, "international-no-region")
    add(other, inter, "international-other-region")
    add(region, national, "national")
    add("", national, "national-no-region")
    add(other, national, "wrong-region")
    add(region, rfc, "rfc3966")
    add("", rfc, "rfc3966-no-region")
    add(region, nsn, "national-digits")
    add(other, nsn, "wrong-region")
    add(region, f"{cc}{nsn}", "no-plus")
    add(other, f"{cc}{nsn}", "no-plus-other-region")
    add(region, f"tel:{nsn};phone-context=+{cc}", "rfc3966-context")
    add("", f"{nsn};phone-context=+{cc}", "rfc3966-context")

    # Prefixes.
    own = idd(region)
    if own:
        add(region, f"{own}{cc}{nsn}", "idd")
        add(region, f"{own} {inter[1:]}", "idd-spaces")
        add("", f"{own}{cc}{nsn}", "idd-no-region")
    theirs = idd(other)
    if theirs:
        add(other, f"{theirs} {cc} {nsn}", "idd-other-region")
        add(region, f"{theirs}{cc}{nsn}", "idd-of-another-region")
    if md.national_prefix:
        trunk = md.national_prefix
        add(region, f"{trunk}{nsn}", "trunk")
        add(region, f"{trunk} {nsn[:3]} {nsn[3:]}", "trunk-spaces")
        add(region, f"({trunk}){nsn}", "trunk-parentheses")
        add("", f"+{cc}{trunk}{nsn}", "trunk-after-code")
        add("", f"+{cc} ({trunk}) {nsn}", "trunk-after-code-parentheses")
        add(region, f"{trunk}{trunk}{nsn}", "trunk-twice")
    else:
        add("", f"+{cc}0{nsn}", "trunk-none-zero")

    # Separators, digits of other scripts, blanks.
    groups = re.split(r"[^0-9+]+", inter)
    for kind, sep in sample(f"sep/{region}", SEPARATORS, 6):
        add(region, sep.join(groups), kind)
    kind, sep = sample(f"sepnat/{region}", SEPARATORS, 1)[0]
    add(region, re.sub(r"[^0-9]+", sep, national), kind)
    add(region, f"+{cc} ({nsn[:3]}) {nsn[3:]}", "parentheses")
    add(region, f"({nsn[:2]}) {nsn[2:]}", "parentheses-national")
    add(region, " ".join(e164), "spaces")
    add(region, full_width(inter), "full-width")
    add(region, script(e164, FULL_WIDTH), "full-width-digits")
    add(region, script(national, FULL_WIDTH), "full-width-national")
    add(region, "＋" + e164[1:], "full-width-plus")
    add(region, script(e164, ARABIC), "arabic-indic")
    add(region, script(inter, DEVANAGARI), "devanagari")
    zero, kind = sample(
        f"zero/{region}",
        [(PERSIAN, "persian"), (BENGALI, "bengali"), (THAI, "thai"), (BOLD, "bold-digits"), (ARABIC, "arabic-indic")],
        1,
    )[0]
    add(region, script(national, zero), f"{kind}-national" if kind != "bold-digits" else kind)
    for kind, before, after in sample(f"blank/{region}", BLANKS, 3):
        add(region, before + inter + after, kind)
    add(region, LABELS[draw(f"label/{region}", len(LABELS))] + inter, "label")

    # Invalid, or nearly so.
    for digits, kind in ((nsn[:-1], "short"), (nsn + "5", "long")):
        for r, w in (("", f"+{cc}{digits}"), (region, digits)):
            valid = expected(r, w) != "invalid"
            note = {"short": ("too-short", "one-digit-fewer"), "long": ("too-long", "one-digit-more")}[kind][valid]
            add(r, w, note)
    add("", f"+{cc}" + "0" * len(nsn), "impossible")
    add("", f"+{cc}" + "1" * len(nsn), "repeated-digit")
    add("", f"+{cc}", "country-code-only")
    add(region, e164 + e164, "two-numbers")
    add(region, inter + " / " + inter, "two-numbers")
    add(region, "+" + e164, "double-plus")
    add(region, e164[:4] + "+" + e164[4:], "plus-inside")
    add(region, e164 + "+", "plus-at-end")
    ext = [" ext. 5", " x5", "x123", ";ext=5", " доб. 123", " #5", ",5", ",,5", " extension 42", "#", " anexo 7", ";isub=12"]
    for e in sample(f"ext/{region}", ext, 2):
        kind = {" x5": "extension-x", "x123": "extension-x", "#": "trailing-hash", ";isub=12": "isdn-subaddress"}.get(e, "extension")
        add(region, inter + e, kind)
    c = CONTROLS[draw(f"cc/{region}", len(CONTROLS))]
    at = draw(f"at/{region}", len(e164) + 1)
    add(region, e164[:at] + c + e164[at:], "control")
    at = draw(f"letter/{region}", len(e164) + 1)
    add(region, e164[:at] + "aZоЖé中ñ"[draw(f"which/{region}", 7)] + e164[at:], "letter-inside")

    # The other kinds of number, and neighbours of the examples.
    if fixed and fixed != main:
        fnsn = pn.national_significant_number(fixed)
        add(region, pn.format_number(fixed, F.E164), "fixed-e164")
        add(region, pn.format_number(fixed, F.INTERNATIONAL), "fixed-international")
        add(region, pn.format_number(fixed, F.NATIONAL), "fixed-national")
        add(region, pn.format_number(fixed, F.RFC3966), "fixed-rfc3966")
        add(region, fnsn, "fixed-national-digits")
        for k in (1, 2, 3):
            add(region, fnsn[k:], "fixed-local")
        if own:
            add(region, f"{own} {cc} {fnsn}", "fixed-idd")
    for kind, t in OTHER_TYPES:
        number = pn.example_number_for_type(region, t)
        if number:
            add("", pn.format_number(number, F.E164), kind)
            add(region, pn.format_number(number, F.NATIONAL), f"{kind}-national")
    for i in range(4):
        tail = str(draw(f"tail/{region}/{i}", 10**4)).zfill(4)
        add("", f"+{cc}{nsn[:-4]}{tail}", "neighbour")
    for i in range(3):
        width = len(nsn) - 1 + i
        digits = str(draw(f"random/{region}/{i}", 10**width)).zfill(width)
        add(region, digits, "random-national")
        add("", f"+{cc}{digits}", "random-international")


def non_geo_rows(cc):
    number = pn.example_number_for_non_geo_entity(cc)
    nsn = pn.national_significant_number(number)
    e164, inter = pn.format_number(number, F.E164), pn.format_number(number, F.INTERNATIONAL)
    add("", e164, "non-geo-e164")
    add("RU", e164, "non-geo-e164")
    add("", inter, "non-geo-international")
    add("", pn.format_number(number, F.RFC3966), "non-geo-rfc3966")
    add("RU", nsn, "non-geo-national-digits")
    add("", nsn, "non-geo-national-digits")
    add("RU", f"8~10 {cc} {nsn}", "non-geo-idd")
    add("US", f"011 {cc} {nsn}", "non-geo-idd")
    add("GB", f"00{cc}{nsn}", "non-geo-idd")
    add("GB", f"{cc}{nsn}", "non-geo-no-plus")
    add("", full_width(inter), "non-geo-full-width")
    add("", script(e164, ARABIC), "non-geo-arabic-indic")
    add("", inter.replace(" ", "\u00a0"), "non-geo-nbsp")
    add("", e164[:-1], "non-geo-short")
    add("", e164 + "0", "non-geo-long")
    add("", e164 + ";ext=1", "extension")
    add("", f"+{cc}", "country-code-only")
    for i in range(3):
        add("", e164[:-4] + str(draw(f"ng/{cc}/{i}", 10**4)).zfill(4), "non-geo-neighbour")


def general_rows():
    for region in ("", "RU", "KZ", "US", "GB", "DE"):
        for w in ("", " ", "   ", "\u00a0", "\u3000", "\u200b", "\ufeff"):
            add(region, w, "empty")
        for w in ("+", "++", "++7", "+ 7", "＋", "＋＋", "-", "()", ".", "/", "#", "*", ";", "tel:", "tel:+", ";ext=5",
                  "+-", "--", "x", "xx", "x5", "~", "*100#", "#31#", "+*", "()()()", "…", "№", "☎"):
            add(region, w, "punctuation")
        for w in ("abc", "letters only", "привет", "нет", "null", "None", "undefined", "电话号码", "رقم", "टेलीफोन",
                  "FLOWERS", "ABCDEFGHIJK", "one two three", "восемь девятьсот", "user@example.com",
                  "https://example.com/", "https://t.me/+79991234567", "wa.me/79991234567", "🙂🙂🙂", "\u0301\u0301\u0301"):
            add(region, w, "letters")
        for w in ("1", "12", "123", "1234", "0", "00", "000", "0000000000", "112", "911", "999", "01", "02", "103",
                  "+1", "+12", "+123", "+1234", "+0", "+00", "+000000000000", "1e10", "0x7FFFFFFF", "-79991234567",
                  "3.14159265358", "１", "٣"):
            add(region, w, "too-short")
        for n in (16, 17, 18, 19, 20, 30, 40, 250, 251, 300):
            add(region, "9" * n, "too-long")
            add(region, "+7" + "9" * n, "too-long")
            add(region, "0" * n, "too-long")
            add(region, " " * n, "empty")
            add(region, "+" * n, "punctuation")
            add(region, "x" * n, "letters")
            add(region, "(" * n + "9991234567", "punctuation")
        for w in ("+79991234567;phone-context=example.com", "9991234567;phone-context=+7", "tel:9991234567;phone-context=+7",
                  "9991234567;phone-context=", "9991234567;phone-context=+", "9991234567;phone-context=7",
                  "9991234567;phone-context=+7;ext=5", "9991234567;ext=5;phone-context=+7", ";phone-context=+79991234567",
                  "tel:+79991234567;phone-context=+1", "9991234567;phone-context=ru", "9991234567;phone-context=-",
                  "9991234567;phone-context=+7-(8)", "9991234567;phone-context=64", "9991234567;phone-context=a.b.c.",
                  "9991234567;PHONE-CONTEXT=+7", "tel:+7-999-123-45-67;isub=1234", "tel:+7-999-123-45-67;foo=bar",
                  "tel:9991234567;isub=1;phone-context=+7", "TEL:+79991234567", "Tel:+79991234567", "tel:tel:+79991234567",
                  "tel://+79991234567", "sms:+79991234567", "callto:+79991234567", "tel: +79991234567", "tel:%2B79991234567",
                  "sip:+79991234567@example.com", "+79991234567@s.whatsapp.net",
                  ):
            add(region, w, "rfc3966-forms")
    # The length limit of phonenumbers and of Google's Java library is 250 characters.
    for n in (230, 238, 239, 250, 300):
        add("RU", " " * n + "+79991234567", "long-blanks")
        add("RU", "+7" + " " * n + "9991234567", "long-blanks")
        add("RU", "+79991234567" + " " * n, "long-blanks")
        add("RU", "+7" + "-" * n + "9991234567", "long-separators")
    # Country calling codes that are assigned to nobody, and those that are.
    known = set(pn.COUNTRY_CODE_TO_REGION_CODE)
    for cc in range(1, 1000):
        if not any(str(cc).startswith(str(k)) or str(k).startswith(str(cc)) for k in known):
            add("", f"+{cc}2345678901"[: 13], "unassigned-country-code")
    # Regions that the library knows nothing of.
    for region in ("AQ", "BV", "CW", "XX", "ZZ", "TF", "GS", "UM", "PN", "HM", "AN", "SU", "EU", "UK"):
        for w in ("+79991234567", "9991234567", "89991234567", "+44 20 7946 0018", "020 7946 0018", "00 7 999 1234567"):
            add(region, w, "region-unknown" if region not in pn.SUPPORTED_REGIONS else "wrong-region")
    # Vanity numbers.
    for region, w in (
        ("US", "1-800-FLOWERS"), ("US", "1-800-flowers"), ("US", "+1-800-FLOWERS"), ("", "+1 800 FLOWERS"),
        ("US", "(800) FLOWERS"), ("US", "800-GOT-JUNK"), ("US", "1-800-MY-APPLE"), ("US", "1 800 CALL ATT"),
        ("US", "1-888-GO-FEDEX"), ("US", "1-800-GOOG-411"), ("US", "1-800-FLOWERSX"), ("US", "1-800-FLOWER"),
        ("US", "1-800-FLOWERSNOW"), ("US", "1-800-FL"), ("US", "1-800-35-69-FL7"), ("US", "１－８００－ＦＬＯＷＥＲＳ"),
        ("CA", "1-800-FLOWERS"), ("GB", "0800 REVERSE"), ("GB", "+44 800 REVERSE"), ("AU", "1800 REVERSE"),
        ("AU", "13 CATS"), ("NZ", "0800 POWERUP"), ("DE", "0800 TELEKOM"), ("RU", "8-800-ЗВОНОК"),
        ("RU", "8-800-ZVONOK1"), ("RU", "8 800 FLOWERS"), ("RU", "+7 800 FLOWERS"), ("", "+7 800 ЗВОНОК1"),
        ("RU", "8 (999) ABC-DE-FG"), ("KZ", "8 800 FLOWERS"), ("RU", "8-800-ПИЦЦА-00"), ("US", "1-800-ЦВЕТЫ"),
        ("US", "1-800-FLÖWERS"), ("US", "1-800-ﬂowers"), ("US", "1-800-FLOWERK"),
    ):
        add(region, w, "vanity")
    # Where the port does otherwise (see the top).
    for region, w, note in (
        ("US", "1-800-FLOWER\u212a", "vanity"),
        ("RU", "+7\uff5e999\uff5e1234567", "full-width-tilde"),
        ("JP", "０９０～１２３４～５６７８", "full-width-tilde"),
        ("", "8～10 49 30 901820", "full-width-tilde"),
        ("RU", "8～10 49 30 901820", "full-width-tilde"),
        ("KZ", "8～10 49 30 901820", "full-width-tilde"),
        ("RU", "9991234567;phone-context=+7;tel:", "context-first"),
        ("RU", "89991234567;phone-context=a.com;tel:", "context-first"),
        ("RU", "1;phone-context=+7;tel:9991234567", "context-first"),
        ("RU", ";phone-context=a.com;tel:+79991234567", "context-first"),
        ("", "+79991234567;phone-context=example.com;tel:+79991234567", "context-first"),
        ("US", "(201) 555-0123;phone-context=+1;isub=1;tel:+12015550123", "context-first"),
        ("KZ", ";phone-context=+7;tel:", "context-first"),
    ):
        add(region, w, note)


# What stands where, for the Russian and Kazakh block: a written form, and its kind.
RUSSIAN = [
    ("8 (999) 123-45-67", "national"), ("8-999-123-45-67", "national"), ("89991234567", "trunk"),
    ("9991234567", "national-digits"), ("+7 999 123 45 67", "international"), ("7 999 1234567", "no-plus"),
    ("79991234567", "no-plus"), ("+7(999)1234567", "parentheses"), ("+7 (999) 123-45-67", "parentheses"),
    ("+7-999-123-45-67", "international"), ("+7.999.123.45.67", "dots"), ("8.999.123.45.67", "dots"),
    ("8/999/1234567", "slashes"), ("8 999 1234567", "trunk"), ("8 999 123 4567", "trunk"), ("8 999 123 45 67", "trunk"),
    ("8(999)123-45-67", "national"), ("8 (999)123-45-67", "national"), ("8-(999)-123-45-67", "national"),
    ("(999) 123-45-67", "parentheses-national"), ("(999)1234567", "parentheses-national"), ("999-123-45-67", "national-digits"),
    ("999 123 45 67", "national-digits"), ("8 9 9 9 1 2 3 4 5 6 7", "spaces"), ("8 99 91 23 45 67", "spaces"),
    ("+ 7 999 123 45 67", "spaces"), ("+7  999  123  45  67", "double-spaces"), ("+7\u00a0999\u00a0123\u00a045\u00a067", "nbsp"),
    ("8\u00a0(999)\u00a0123‑45‑67", "nbsp"), ("+7\u202f999\u202f123\u202f45\u202f67", "narrow-nbsp"),
    ("8\u2009999\u2009123\u200945\u200967", "thin-space"), ("8 (999) 123–45–67", "en-dash"), ("8 (999) 123—45—67", "em-dash"),
    ("8 (999) 123−45−67", "minus"), ("8 999 123‐45‐67", "hyphens"), ("８（９９９）１２３－４５－６７", "full-width"),
    ("＋７　９９９　１２３　４５　６７", "full-width"), ("８９９９１２３４５６７", "full-width-digits"), ("９９９１２３４５６７", "full-width-digits"),
    ("＋79991234567", "full-width-plus"), ("８－９９９－１２３－４５－６７", "full-width"), ("+٧٩٩٩١٢٣٤٥٦٧", "arabic-indic"),
    ("٨٩٩٩١٢٣٤٥٦٧", "arabic-indic"), ("+۷۹۹۹۱۲۳۴۵۶۷", "persian"), ("+७९९९१२३४५६७", "devanagari"),
    ("+𝟕𝟗𝟗𝟗𝟏𝟐𝟑𝟒𝟓𝟔𝟕", "bold-digits"), ("+7①②③4567890", "circled-digits"), ("8999123456⁷", "superscript"), ("+7999123456Ⅶ", "roman-numeral"),
    ("8️⃣9️⃣9️⃣9️⃣1️⃣2️⃣3️⃣4️⃣5️⃣6️⃣7️⃣", "keycap-emoji"),
    ("++79991234567", "double-plus"), ("++7 999 123-45-67", "double-plus"), ("+ +79991234567", "double-plus"), ("＋＋79991234567", "double-plus"),
    ("+＋79991234567", "double-plus"), ("+89991234567", "plus-eight"), ("+8 (999) 123-45-67", "plus-eight"), ("+8 999 123 45 67", "plus-eight"),
    ("+9991234567", "plus-without-code"), ("+7 8 999 123 45 67", "trunk-after-code"), ("+7 (8) 999 123 45 67", "trunk-after-code-parentheses"),
    ("+789991234567", "trunk-after-code"), ("+7 7 999 123 45 67", "code-twice"), ("+7 +7 999 123 45 67", "code-twice"), ("8 8 999 123 45 67", "trunk-twice"),
    ("8 7 999 123 45 67", "trunk-and-code"), ("8 +7 999 123 45 67", "trunk-and-code"), ("8+79991234567", "trunk-and-code"), ("07 999 123 45 67", "trunk-none-zero"),
    ("0 999 123 45 67", "trunk-none-zero"), ("00 7 999 123 45 67", "idd-of-another-region"), ("007 999 1234567", "idd-of-another-region"),
    ("011 7 999 123 45 67", "idd-of-another-region"), ("810 7 999 123 45 67", "idd"), ("8 10 7 999 123 45 67", "idd"), ("8~10 7 999 123 45 67", "idd"),
    ("8 10 49 30 901820", "idd"), ("8~10 49 30 901820", "idd"), ("8-10-49-30-901820", "idd"), ("810 49 30 901820", "idd"), ("8 10 44 20 7946 0018", "idd"),
    ("8~10 44 20 7946 0018", "idd"), ("8 10 1 415 555 26 71", "idd"), ("8~10 1 202 456 1111", "idd"), ("8 10 380 44 279 00 00", "idd"),
    ("8 10 375 29 491 19 11", "idd"), ("8∼10 49 30 901820", "idd-tilde-operator"), ("8*10 49 30 901820", "idd-star"),
    ("8w10 49 30 901820", "idd-w"), ("810", "idd-only"), ("8~10", "idd-only"), ("8 10 0 49", "idd-only"),
    ("8-800-555-35-35", "toll-free"), ("8 800 555 35 35", "toll-free"), ("8 (800) 555-35-35", "toll-free"), ("8(800)5553535", "toll-free"),
    ("88005553535", "toll-free"), ("+7 800 555 35 35", "toll-free"), ("+78005553535", "toll-free"), ("8005553535", "toll-free"), ("800 555 35 35", "toll-free"),
    ("78005553535", "toll-free"), ("+7 (800) 555-35-35", "toll-free"), ("8 804 333 00 00", "toll-free"), ("+7 804 333 00 00", "toll-free"), ("8 809 505 00 00", "premium-rate"),
    ("8 (495) 123-45-67", "fixed-national"), ("+7 495 123-45-67", "fixed-international"), ("495 123 45 67", "fixed-national-digits"), ("84951234567", "fixed-national"),
    ("+7 (4852) 12-34-56", "fixed-international"), ("8 (48535) 2-34-56", "fixed-national"), ("8 (812) 123-45-67", "fixed-national"), ("8 (3952) 12-34-56", "fixed-national"),
    ("+7 812 123 45 67", "fixed-international"), ("+7 499 123 45 67", "fixed-international"), ("123-45-67", "fixed-local"), ("12-34-56", "fixed-local"),
    ("2-34-56", "fixed-local"), ("+7 (846) 267-00-00", "fixed-international"), ("8 (365) 212-34-56", "fixed-national"), ("+7 978 123 45 67", "international"),
    ("+7 949 123 45 67", "international"), ("+7 856 123 45 67", "impossible"), ("+7 100 123 45 67", "impossible"), ("+7 200 123 45 67", "impossible"),
    ("+7 000 000 00 00", "impossible"), ("+7 599 123 45 67", "impossible"), ("+7 679 123 45 67", "impossible"), ("+70001234567", "impossible"),
    ("+7 999 123 45 6", "too-short"), ("8999123456", "too-short"), ("8 999 123 45 6", "too-short"), ("+7 999 123 45", "too-short"), ("999123456", "too-short"),
    ("+7 999", "too-short"), ("+7", "too-short"), ("8", "too-short"), ("89", "too-short"), ("7", "too-short"), ("+7 999 123 45 678", "too-long"),
    ("899912345678", "too-long"), ("8 999 123 45 67 8", "too-long"), ("99912345678", "too-long"), ("+7999123456789012", "too-long"), ("8999123456789", "too-long"),
    ("8999123456789991234567", "two-numbers"), ("89991234567 89991234568", "two-numbers"), ("89991234567, 89991234568", "two-numbers"), ("89991234567;89991234568", "two-numbers"),
    ("89991234567/89991234568", "two-numbers"), ("89991234567 / 68", "two-numbers"), ("+79991234567+79991234568", "two-numbers"), ("+7 999 123-45-67, +7 999 123-45-68", "two-numbers"),
    ("+7 999 123-45-67/68", "two-numbers"), ("+79991234567 или +79991234568", "two-numbers"), ("89991234567\\89991234568", "two-numbers"), ("+79991234567/x79991234568", "two-numbers"),
    ("8 (999) 123-45-67 доб. 123", "extension"), ("8 (999) 123-45-67 доб 12", "extension"), ("8 (999) 123-45-67 (доб. 123)", "extension"), ("8 (999) 123-45-67, доб. 123", "extension"),
    ("8 (999) 123-45-67 доб.123", "extension"), ("8 (999) 123-45-67доб123", "extension"), ("8 (999) 123-45-67 ДОБ. 123", "extension"), ("8 (999) 123-45-67 Доб. 123", "extension"),
    ("8 (999) 123-45-67 доб: 123", "extension"), ("8 (999) 123-45-67 добавочный 123", "extension"), ("8 (999) 123-45-67 вн. 123", "extension"), ("8 (999) 123-45-67 внутр. 12", "extension"),
    ("8 (495) 123-45-67 доб. 123", "extension"), ("+7 495 123-45-67 доб. 1", "extension"), ("+79991234567 ext. 5", "extension"), ("+79991234567 ext 5", "extension"),
    ("+79991234567ext5", "extension"), ("+79991234567 ext: 5", "extension"), ("+79991234567 extn 5", "extension"), ("+79991234567 extension 5", "extension"),
    ("+79991234567#5", "extension"), ("+79991234567 # 5", "extension"), ("89991234567#123", "extension"), ("+79991234567#", "trailing-hash"), ("+79991234567 #", "trailing-hash"),
    ("+79991234567x5", "extension-x"), ("+79991234567 x5", "extension-x"), ("+79991234567 x 5", "extension-x"), ("+79991234567X5", "extension-x"), ("+79991234567х5", "extension-x-cyrillic"),
    ("+79991234567 х 5", "extension-x-cyrillic"), ("+79991234567 ×5", "extension-times"), ("+79991234567ｘ5", "extension-x-full-width"), ("+79991234567;ext=5", "extension"),
    ("tel:+79991234567;ext=5", "extension"), ("tel:+7-999-123-45-67;ext=1234567", "extension"), ("+79991234567;EXT=5", "extension"), ("+79991234567;ext=", "extension-empty"),
    ("+79991234567;ext=abc", "extension-empty"), ("+79991234567 доб.", "extension-empty"), ("+79991234567 ext.", "extension-empty"), ("+79991234567x", "extension-empty"),
    ("+79991234567,5", "extension"), ("+79991234567,,5", "extension"), ("+79991234567p5", "extension-pause"), ("+79991234567w5", "extension-pause"), ("+79991234567 int 5", "extension"),
    ("+79991234567 anexo 5", "extension"), ("+79991234567 ~5", "extension"), ("+79991234567 ;5", "extension"), ("+79991234567;ext=123456789012345678901", "extension"),
    ("+79991234567 ext. ٥", "extension"), ("+79991234567 ｅｘｔ 5", "extension"), ("8 999 xxx xx xx", "placeholder"), ("+7 (___) ___-__-__", "placeholder"), ("+7 (999) ___-__-__", "placeholder"),
    ("+7 (999) 123-45-6_", "placeholder"), ("8 (9xx) xxx-xx-xx", "placeholder"), ("8 x 999 x 123 x 45 x 67", "placeholder"), ("8x9991234567", "placeholder"), ("+7x999x1234567", "placeholder"),
    ("+7 *** *** 45 67", "masked"), ("8 999 *** ** 67", "masked"), ("+7999*****67", "masked"), ("+7•••••••4567", "masked"),
    ("tel:+79991234567", "rfc3966"), ("tel:+7-999-123-45-67", "rfc3966"), ("tel:89991234567", "rfc3966"), ("tel:8-999-123-45-67", "rfc3966"), ("tel:9991234567;phone-context=+7", "rfc3966"),
    ("тел. 8 (999) 123-45-67", "label"), ("Тел.: +7 999 123-45-67", "label"), ("моб. 89991234567", "label"), ("т.89991234567", "label"), ("мой номер 89991234567", "label"), ("сот. 8 999 123 45 67", "label"),
    ("Телефон +79991234567", "label"), ("№ 89991234567", "label"), ("☎ +79991234567", "label"), ("📱+7 999 123-45-67", "label"), ("Иван 89991234567", "label"), ("1) 89991234567", "label"),
    ("WhatsApp: +79991234567", "label"), ("tel 89991234567", "label"), ("89991234567 Иван", "trailing-text"), ("89991234567 (моб.)", "trailing-text"), ("89991234567 (WhatsApp)", "trailing-text"),
    ("+7 999 123-45-67 моб", "trailing-text"), ("89991234567 мтс", "trailing-text"), ("89991234567 a", "trailing-text"), ("89991234567 ab", "trailing-text"), ("89991234567 abc", "trailing-text"),
    ("89991234567!", "trailing-punctuation"), ("89991234567.", "trailing-punctuation"), ("89991234567,", "trailing-punctuation"), ("89991234567;", "trailing-punctuation"), ("89991234567-", "trailing-punctuation"),
    ("89991234567)", "trailing-punctuation"), ("(89991234567)", "trailing-punctuation"), ("«89991234567»", "quotes"), ("\"89991234567\"", "quotes"), ("'89991234567", "quotes"), ("`89991234567`", "quotes"),
    ("=89991234567", "quotes"), ("=\"+79991234567\"", "quotes"), (" 89991234567", "leading-blank"), ("89991234567 ", "trailing-blank"), ("\u00a089991234567\u00a0", "both-blanks"), ("\u300089991234567", "leading-blank"),
    ("\u202a+79991234567\u202c", "bidi-marks"), ("\u200e+79991234567", "bidi-marks"), ("\u200f89991234567\u200f", "bidi-marks"), ("\u2066+7 999 123-45-67\u2069", "bidi-marks"), ("+\u200e79991234567", "bidi-marks-inside"),
    ("+7\u200e9991234567", "bidi-marks-inside"), ("\ufeff+79991234567", "byte-order-mark"), ("+7\ufeff9991234567", "byte-order-mark"), ("+7\u200d9991234567", "zero-width-joiner"), ("+7\u200b9991234567", "zero-width-space"),
    ("+7\u20609991234567", "word-joiner"), ("+7\u00ad9991234567", "soft-hyphen"), ("+7\u20289991234567", "line-separator"), ("8\u0301999\u03011234567", "combining"), ("+7 999 123 45 67\u0301", "combining"),
    ("+7 999 123 45 67\u0000".replace("\0", "\x01"), "control"), ("\x1b[31m+79991234567\x1b[0m", "control"), ("+7999\x7f1234567", "control"), ("\x8589991234567", "control"), ("89991234567\x0b", "control"), ("\x0c89991234567", "control"),
    ("8 9Z9 123 45 67", "letter-inside"), ("8 999 l23 45 67", "letter-inside"), ("8 999 123 45 6O", "letter-inside"), ("8 999 123 45 6О", "letter-inside"), ("8 999 123 4S 67", "letter-inside"), ("З 999 123 45 67", "letter-inside"),
    ("В999 123 45 67", "letter-inside"), ("B9991234567", "letter-inside"), ("+7 999 ABC DE FG", "vanity"), ("8-999-ЗВОНОК1", "vanity"),
    ("8 {999} 123-45-67", "braces"), ("8 [999] 123-45-67", "brackets"), ("8 <999> 123-45-67", "angle-brackets"), ("8 (999 123-45-67", "parentheses-open"), ("8 999) 123-45-67", "parentheses-open"), ("8 ((999)) 123-45-67", "parentheses-twice"),
    ("8 () 999 123-45-67", "parentheses-empty"), ("8 ( 999 ) 123 - 45 - 67", "spaced-hyphens"), ("8--999--123--45--67", "hyphens-twice"), ("8..999..123..45..67", "dots"), ("8 - 999 - 123 - 45 - 67", "spaced-hyphens"), ("8_999_123_45_67", "underscore"),
    ("8·999·123·45·67", "middle-dot"), ("8•999•123•45•67", "middle-dot"), ("8:999:123:45:67", "colon"), ("8,999,123,45,67", "comma"), ("8'999'123'45'67", "apostrophe"), ("8|999|1234567", "bar"), ("8=999=1234567", "equals"), ("8 999 123*45*67", "star"),
    ("8&nbsp;999&nbsp;1234567", "entity"), ("%2B79991234567", "percent-encoded"), ("+7%20999%201234567", "percent-encoded"), ("7.9991234567E+10", "scientific"), ("7,9991234567E+10", "scientific"), ("79991234567.0", "decimal"), ("79991234567,0", "decimal"),
    ("89991234567.00", "decimal"), ("-89991234567", "minus-sign"), ("−89991234567", "minus-sign"), ("$89991234567", "currency"), ("*89991234567", "star"), ("#89991234567", "hash-first"), ("*31#89991234567", "clir"), ("#31#+79991234567", "clir"), ("*100#", "ussd"),
    ("0079991234567", "idd-of-another-region"), ("+007 999 1234567", "plus-idd"), ("+0079991234567", "plus-idd"), ("+810 7 999 1234567", "plus-idd"), ("+8107 999 1234567", "plus-idd"), ("+00 7 999 1234567", "plus-idd"), ("+8~10 7 999 1234567", "plus-idd"),
    ("７９９９１２３４５６７", "full-width-digits"), ("（９９９）１２３－４５－６７", "full-width"), ("８ ９９９ １２３ ４５ ６７", "full-width"), ("８／９９９／１２３４５６７", "full-width"), ("８．９９９．１２３．４５．６７", "full-width"), ("ｔｅｌ：＋７９９９１２３４５６７", "full-width"),
    ("＋7９9９1２3４5６7", "mixed-scripts"), ("+7٩٩٩1234567", "mixed-scripts"), ("８９99१२३४५६७", "mixed-scripts"),
    ("100", "short-code"), ("101", "short-code"), ("102", "short-code"), ("112", "short-code"), ("0500", "short-code"), ("0890", "short-code"), ("900", "short-code"), ("5757", "short-code"),
]


def russian_rows():
    for written, note in RUSSIAN:
        for region in ("RU", "KZ", ""):
            add(region, written, note)
    # Every code of a Kazakh mobile operator, and some of its neighbours.
    for code in ["700", "701", "702", "703", "704", "705", "706", "707", "708", "709", "710", "727", "747", "750", "751",
                 "760", "761", "762", "763", "764", "771", "772", "773", "774", "775", "776", "777", "778", "779", "780"]:
        for region in ("KZ", "RU"):
            add(region, f"+7 {code} 123 45 67", "kazakh-international")
            add(region, f"8 {code} 123 45 67", "kazakh-trunk")
            add(region, f"8 ({code}) 123-45-67", "kazakh-national")
            add(region, f"7{code}1234567", "kazakh-no-plus")
            add(region, f"{code}1234567", "kazakh-national-digits")
            add(region, f"{code} 123 45 67", "kazakh-national-digits")
        add("", f"+7{code}1234567", "kazakh-e164")
        add("KZ", f"8~10 7 {code} 1234567", "kazakh-idd")
        add("DE", f"00 7 {code} 123 45 67", "kazakh-idd")
        add("US", f"011 7 {code} 123 45 67", "kazakh-idd")
        add("KZ", full_width(f"+7 {code} 123-45-67"), "kazakh-full-width")
        add("KZ", script(f"8{code}1234567", ARABIC), "kazakh-arabic-indic")
        add("KZ", f"+7 {code} 123 45 67 доб. 5", "extension")
        add("KZ", f"+7 {code} 123 45 6", "too-short")
        add("KZ", f"+7 {code} 123 45 678", "too-long")
    for w in ("8 727 250 00 00", "+7 727 250 00 00", "8 (7172) 70-20-00", "+7 7172 702000", "7172702000", "8 7212 42 12 34",
              "8 800 080 77 77", "+7 800 080 77 77", "8 (8000) 80 77 77", "8 7 701 123 45 67", "87011234567", "+77011234567", "77011234567", "7011234567",
              "8 10 7 701 123 45 67", "00 7 701 123 45 67", "+997 701 123 45 67", "+9977011234567"):
        for region in ("KZ", "RU", ""):
            add(region, w, "kazakh-other")
    # All the codes of Russian mobile and fixed lines.
    for code in range(300, 1000):
        if code // 100 == 9 or code % 7 == 0:
            add("RU", f"8 ({code}) 234-56-78", "code-sweep")
    # Neighbours of the two, as they are written at home.
    for region, w in (
        ("BY", "8 029 491 19 11"), ("BY", "+375 29 491-19-11"), ("BY", "80294911911"), ("BY", "029 491 19 11"), ("BY", "8 10 7 999 123 45 67"), ("BY", "8~10 7 999 1234567"),
        ("UA", "050 123 45 67"), ("UA", "+38 (050) 123-45-67"), ("UA", "8 050 123 45 67"), ("UA", "380501234567"), ("UA", "+380 50 123 45 67"),
        ("UZ", "+998 90 123 45 67"), ("UZ", "90 123 45 67"), ("UZ", "8 90 123 45 67"), ("UZ", "998901234567"), ("KG", "0700 123 456"), ("KG", "+996 700 123 456"),
        ("TJ", "+992 917 12 34 56"), ("TJ", "8 917 12 34 56"), ("TM", "8 66 123456"), ("TM", "+993 66 123456"), ("AM", "077 123456"), ("AM", "+374 77 123456"),
        ("AZ", "040 123 45 67"), ("AZ", "+994 40 123 45 67"), ("GE", "555 12 34 56"), ("GE", "+995 555 12 34 56"), ("MD", "0621 12 345"), ("MD", "+373 621 12 345"),
        ("LV", "21 234 567"), ("LT", "(8-612) 34567"), ("LT", "+370 612 34567"), ("LT", "8 612 34567"), ("LT", "0 612 34567"), ("EE", "5123 4567"), ("MN", "8812 3456"), ("FI", "041 2345678"),
        ("IT", "06 1234 5678"), ("IT", "+39 06 1234 5678"), ("IT", "+39 6 1234 5678"), ("IT", "312 345 6789"), ("AR", "011 15-2345-6789"), ("AR", "+54 9 11 2345-6789"), ("AR", "+54 11 15 2345 6789"),
        ("MX", "044 55 1234 5678"), ("MX", "+52 1 55 1234 5678"), ("MX", "01 55 1234 5678"), ("BR", "(11) 96123-4567"), ("BR", "0 15 11 96123-4567"), ("BR", "+55 (0xx11) 96123-4567"), ("BR", "011 96123-4567"),
        ("DE", "0151/23456789"), ("DE", "+49 (0)151 23456789"), ("DE", "030/901820"), ("GB", "+44 (0)7400 123456"), ("GB", "07400 123456"), ("FR", "06 12 34 56 78"), ("FR", "+33 (0)6 12 34 56 78"), ("FR", "06.12.34.56.78"),
        ("US", "(201) 555-0123"), ("US", "201.555.0123"), ("US", "1-201-555-0123"), ("US", "+1 (201) 555-0123"), ("US", "201-555-0123 x5"), ("US", "555-0123"), ("CN", "131 2345 6789"), ("JP", "090-1234-5678"), ("JP", "０９０－１２３４－５６７８"), ("JP", "０９０ー１２３４ー５６７８"),
        ("IN", "+91 81234 56789"), ("IN", "०८१२३४५६७८९"), ("SA", "٠٥١ ٢٣٤ ٥٦٧٨"), ("EG", "٠١٠٠ ١٢٣ ٤٥٦٧"), ("IR", "۰۹۱۲ ۳۴۵ ۶۷۸۹"), ("IL", "*2345"), ("IL", "050-234-5678"), ("CI", "01 23 45 67 89"), ("HU", "06 20 123 4567"), ("CR", "8312 3456"),
    ):
        add(region, w, "neighbours")
    # One digit wrong, dropped or doubled, and neighbours swapped, in the commonest form.
    for i in range(11):
        base = "89991234567"
        add("RU", base[:i] + base[i + 1 :], "digit-dropped")
        add("RU", base[: i + 1] + base[i:], "digit-doubled")
        if i < 10:
            add("RU", base[:i] + base[i + 1] + base[i] + base[i + 2 :], "digits-swapped")
        for d in "0123456789":
            add("RU", base[:i] + d + base[i + 1 :], "digit-changed")
    # A separator, a blank or a character of another script at every place.
    for c in " -.()/x~,;:#*+_=\u00a0\u2009\u200b\u200e\u3000－．＋":
        for i in range(13):
            base = "+79991234567"
            add("RU", base[:i] + c + base[i:], "inserted")


def main():
    russian_rows()
    general_rows()
    for cc in NON_GEO:
        non_geo_rows(cc)
    for region in REGIONS:
        region_rows(region)
    lines = sorted(f"{region}\t{written}\t{exp}\t{note}" for (region, written), (exp, note) in rows.items())
    with open(OUT, "w", encoding="utf-8", newline="\n") as f:
        f.write("region\twritten\texpected\tnote\n")
        for line in lines:
            f.write(line + "\n")
    valid = sum(exp != "invalid" for exp, _ in rows.values())
    print(f"{len(lines)} lines, {valid} valid, {len(lines) - valid} invalid, {len({n for _, n in rows.values()})} kinds")


if __name__ == "__main__":
    main()
