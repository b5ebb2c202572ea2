"""Terms of use: what sources and models ask for, and what follows for the map made of them.

The table and the rules are a reading of the licences' own texts, kept on the strict side; they
spare nobody the reading of a licence before a map is sold.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Literal

from mapper.errors import RecipeError

Use = Literal["any", "non-commercial", "internal"]
"""What a recipe says its maps are for; `any` is commercial use too."""
Obligation = Literal["attribution", "share-alike", "non-commercial", "ask", "internal"]
"""What a map owes: `ask` where terms are not known, `internal` where it may not be published."""
_SILENT = {"", "other", "various"}
_NAMES = {"odbl": "odbl-1.0", "cc0": "cc0-1.0"}
_NOT_SPDX = {"US-PD", "Copernicus-Sentinel", "Copernicus-DEM"}
_CREATIVE_COMMONS = re.compile(
    r"(CC-BY(?:-NC)?(?:-SA|-ND)?)(-\d+\.\d+(?:-(?!(?:NC|SA|ND)\b)[A-Z]+)?)?"
)
_SOFTWARE = re.compile(
    r"(?:MIT|ISC|Apache|BSD|MPL|A?GPL|LGPL)(?:-\d+(?:\.\d+)?)?(?:-.+)?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class License:
    """What a licence asks for, of those who publish a map made from what it covers."""

    id: str
    """SPDX, or a name of this table; only SPDX ids and `other` are ever written into a product."""
    attribution: bool = True
    share_alike: bool = False
    """A map must be under the same licence."""
    non_commercial: bool = False
    no_derivatives: bool = False
    """A map made from it may not be published."""
    software: bool = False
    """Binds copies of the weights, not what they compute."""
    known: bool = True

    @property
    def family(self) -> str:
        """The id without its version."""
        return re.sub(r"-\d+\.\d+.*$", "", self.id)

    @property
    def version(self) -> float:
        """0 where the id has none."""
        found = re.search(r"-(\d+\.\d+)", self.id)
        return float(found.group(1)) if found else 0.0


LICENSES: dict[str, License] = {
    known.id.lower(): known
    for known in (
        License(id="CC0-1.0", attribution=False),
        License(id="PDDL-1.0", attribution=False),
        License(id="US-PD", attribution=False),
        License(id="Copernicus-Sentinel"),
        License(id="Copernicus-DEM"),
        License(id="ODC-By-1.0"),
        License(id="OGL-UK-3.0"),
        License(id="etalab-2.0"),
        License(id="ODbL-1.0", share_alike=True),
        License(id="proprietary", known=False),
    )
}
"""Licences that follow no pattern, by their id in lower case."""


def license_of(name: str) -> License:
    """What is known of a licence; `known=False` for `other`, `proprietary` and unlisted ones.

    Creative Commons and software licences are read from their SPDX id, in all versions; written
    with spaces or without a version they bind as much, and count as the newest.
    """
    name = "-".join(name.split())
    listed = LICENSES.get(_NAMES.get(name.lower(), name.lower()))
    if listed is not None:
        return listed
    found = _CREATIVE_COMMONS.fullmatch(name.upper())
    if found:
        kind = found.group(1)
        return License(
            id=name.upper() if found.group(2) else f"{kind}-4.0",
            share_alike=kind.endswith("-SA"),
            non_commercial="-NC" in kind,
            no_derivatives=kind.endswith("-ND"),
        )
    if _SOFTWARE.fullmatch(name):
        return License(id=name, attribution=False, software=True)
    return License(id=name or "other", known=False)


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which terms a source or a model is used."""

    license: str
    """SPDX, a name of `LICENSES`, or `other`."""
    attribution: str = ""
    """The line to print. `[year]` in it stands for the years of the data: see `dated`."""
    url: str = ""
    """Where the terms are written."""
    note: str = ""
    """What else its owner asks for."""

    def dated(self, years: Iterable[int]) -> "Terms":
        """The terms with `[year]` filled in; taken out where no year is known."""
        text = ", ".join(str(year) for year in sorted(set(years)))
        line = self.attribution.replace("[year]", text) if text else self.attribution
        return replace(self, attribution=re.sub(r"\s*\[year\]", "", line))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductTerms:
    """What follows for a map."""

    license: str
    """For the item's `license`: SPDX, `proprietary` where declared so, or `other`."""
    attributions: tuple[str, ...]
    """One line a source, without repetition, in the order of the sources' names."""
    notes: tuple[str, ...]
    """For people: who asks for what, what is not known, why a map is internal."""
    obligations: frozenset[Obligation]
    """Only ever grows with the sources."""


Named = tuple[str, Terms]
"""A source or model by its name in the recipe, and its terms."""


def combine(terms: Iterable[Named], declared: str, use: Use) -> ProductTerms:
    """Licence, attributions and notes of a map made of these sources and models.

    Rules, by the licences' texts (CC BY-SA 4.0 section 3(b), CC BY-NC 4.0 section 2(a)(1),
    CC BY-ND 4.0 section 2(a)(1)(B), ODbL 1.0 section 4.4; a raster of classes is read as a
    derivative database):

    * no derivatives: refused, but for internal use;
    * non-commercial: refused where `use` is `any`; the map is non-commercial too;
    * share alike: the map has that licence (the newest version of one family). Two families,
      and share alike beside a non-commercial source it has no clause for, cannot be satisfied;
    * a declared licence that is laxer than this is refused, a stricter one is kept;
    * terms that are not known bind nobody here: the map says what the recipe declares, or `other`;
    * software licences bind copies of the weights, not the map;
    * for internal use nothing is refused: what would have been makes the licence `other`.

    The order of `terms` does not matter.

    Args:
        terms: name and terms of each source and of each model.
        declared: the recipe's licence; `other` or nothing leaves it to the sources.
        use: what the recipe says its maps are for.

    Raises: RecipeError for a conflict: which source, and what to change.
    """
    named = sorted(set(terms), key=lambda one: (one[0], astuple(one[1])))
    conflict = _conflict(named, license_of(declared), use)
    if conflict and use != "internal":
        raise RecipeError(conflict)
    owed = _obligations(named)
    if conflict:
        owed.add("internal")
    return ProductTerms(
        license="other" if conflict else _product_license(named, license_of(declared)),
        attributions=tuple(dict.fromkeys(line for one in named if (line := _credit(one)))),
        notes=tuple(dict.fromkeys(_notes(named, license_of(declared), conflict))),
        obligations=frozenset(owed),
    )


def _asking(named: Sequence[Named], trait: str) -> list[tuple[str, License]]:
    """Names and licences of those whose licence has a trait."""
    found = [(name, license_of(terms.license)) for name, terms in named]
    return [(name, known) for name, known in found if getattr(known, trait)]


def _obligations(named: Sequence[Named]) -> set[Obligation]:
    traits: dict[str, Obligation] = {
        "attribution": "attribution",
        "share_alike": "share-alike",
        "non_commercial": "non-commercial",
    }
    owed = {what for trait, what in traits.items() if _asking(named, trait)}
    if _unknown(named):
        owed.add("ask")
    return owed


def _unknown(named: Sequence[Named]) -> list[str]:
    return [name for name, terms in named if not license_of(terms.license).known]


def _conflict(named: Sequence[Named], declared: License, use: Use) -> str:
    """Why a map of these cannot be published as declared; empty where it can."""
    for name, known in _asking(named, "no_derivatives"):
        return (
            f"source {name!r} is under {known.id}, which lets nobody publish what is made from it; "
            "take another source, or declare `use: internal`"
        )
    for name, known in _asking(named, "non_commercial"):
        if use == "any":
            return (
                f"the recipe's use is 'any', but source {name!r} is under {known.id}, which "
                "forbids commercial use; declare `use: non-commercial`, or take another source"
            )
    return _share_conflict(named) or _declared_conflict(named, declared)


def _share_conflict(named: Sequence[Named]) -> str:
    sharing = _asking(named, "share_alike")
    for name, known in sharing[1:]:
        first, other = sharing[0]
        if known.family != other.family:
            return (
                f"source {first!r} asks for a map under {other.id} and source {name!r} for one "
                f"under {known.id}; leave one of them out, or declare `use: internal`"
            )
    for name, known in _asking(named, "non_commercial"):
        if sharing and not sharing[0][1].non_commercial:
            return (
                f"source {name!r} ({known.id}) forbids commercial use and source "
                f"{sharing[0][0]!r} ({sharing[0][1].id}) forbids forbidding it; leave one of them "
                "out, or declare `use: internal`"
            )
    return ""


def _declared_conflict(named: Sequence[Named], declared: License) -> str:
    """Why the declared licence is laxer than what the sources ask for."""
    if declared.id.lower() in _SILENT:
        return ""
    laxer = f"the recipe's licence is {declared.id}, but source "
    share = _shared(named)
    if share is not None:
        name = next(n for n, known in _asking(named, "share_alike") if known.id == share.id)
        if declared.family != share.family or declared.version < share.version:
            return f"{laxer}{name!r} asks for {share.id}; write `license: {share.id}`"
    strict = declared.non_commercial or declared.id == "proprietary"
    for name, known in _asking(named, "non_commercial"):
        if not strict:
            return f"{laxer}{name!r} is under {known.id}; write `license: {_NON_COMMERCIAL}`"
    for name, known in _asking(named, "attribution"):
        if declared.known and not declared.attribution:
            return (
                f"{laxer}{name!r} is under {known.id}, which asks for attribution; "
                "write `license: CC-BY-4.0`, or a stricter one"
            )
    return ""


_NON_COMMERCIAL = "CC-BY-NC-4.0"
"""What a non-commercial source makes of a map for which the recipe declares nothing."""


def _shared(named: Sequence[Named]) -> License | None:
    """The share-alike licence of the map: the newest version asked for."""
    sharing = [known for _, known in _asking(named, "share_alike")]
    return max(sharing, key=lambda known: (known.version, known.id), default=None)


def _product_license(named: Sequence[Named], declared: License) -> str:
    """The licence, once it is certain that nothing conflicts."""
    if declared.id.lower() not in _SILENT:
        return "other" if declared.id in _NOT_SPDX else declared.id
    share = _shared(named)
    if _unknown(named):
        return "other"
    if share is not None:
        return share.id
    return _NON_COMMERCIAL if _asking(named, "non_commercial") else "other"


def _credit(one: Named) -> str:
    """The attribution of a source; made up from name and licence where one is owed and missing."""
    name, terms = one
    known = license_of(terms.license)
    return terms.attribution or (
        f"{name} ({known.id})" if known.attribution and known.known else ""
    )


def _notes(named: Sequence[Named], declared: License, conflict: str) -> list[str]:
    notes = [f"{name}: {terms.note}" for name, terms in named if terms.note]
    said = {
        "non_commercial": "non-commercial use only",
        "share_alike": "asks that the map has its licence",
        "no_derivatives": "what is made from it may not be published",
        "software": "binds copies of the weights, not the map",
    }
    for trait, text in said.items():
        notes += [f"{name}: {known.id}, {text}" for name, known in _asking(named, trait)]
    for name in _unknown(named):
        notes.append(f"{name}: terms not known to mapper; ask its owner before publishing the map")
    if not declared.known and declared.id not in {"other", "various", "proprietary"}:
        notes.append(f"the recipe's licence {declared.id} is not in mapper's table")
    if conflict:
        notes.append(f"for internal use only: {conflict}")
    return notes
