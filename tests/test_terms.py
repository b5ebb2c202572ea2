"""What follows for a map from the terms of its sources, by table and by property."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.errors import RecipeError
from mapper.terms import LICENSES, Terms, combine, license_of

IDS = (
    *("CC0-1.0", "US-PD", "CC-BY-4.0", "Copernicus-Sentinel", "Copernicus-DEM", "MIT"),
    *("CC-BY-SA-3.0", "CC-BY-SA-4.0", "ODbL-1.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"),
    *("CC-BY-ND-4.0", "CC-BY-NC-ND-4.0", "other", "proprietary", "various", "A-Made-Up-1.0"),
)
DECLARED = ("other", "", "proprietary", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "ODbL-1.0")
DECLARED += ("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "MIT", "A-Made-Up-1.0")
USES = ("any", "non-commercial", "internal")

named = st.tuples(
    st.sampled_from("abcdef"),
    st.builds(Terms, st.sampled_from(IDS), st.sampled_from(["", "© One", "© Two"])),
)
sources = st.lists(named, max_size=5)
declarations = st.sampled_from(DECLARED)


def of(*ids):
    """Sources a, b, c under these licences."""
    return [(name, Terms(one, f"© {name}")) for name, one in zip("abc", ids, strict=False)]


def outcome(terms, declared, use):
    """What follows, or the refusal."""
    try:
        return combine(terms, declared, use)
    except RecipeError as reason:
        return str(reason)


PUBLISHED = [
    # sources, declared licence, use, licence of the map
    ((), "other", "any", "other"),
    ((), "CC0-1.0", "any", "CC0-1.0"),
    (("US-PD",), "CC0-1.0", "any", "CC0-1.0"),
    (("Copernicus-Sentinel", "Copernicus-DEM", "US-PD"), "CC-BY-4.0", "any", "CC-BY-4.0"),
    (("Copernicus-Sentinel",), "other", "any", "other"),
    (("CC-BY-4.0",), "proprietary", "any", "proprietary"),
    (("CC-BY-4.0",), "CC-BY-NC-4.0", "any", "CC-BY-NC-4.0"),
    (("CC-BY-4.0",), "ODbL-1.0", "any", "ODbL-1.0"),
    (("CC-BY-4.0", "ODbL-1.0"), "other", "any", "ODbL-1.0"),
    (("ODbL-1.0",), "ODbL-1.0", "any", "ODbL-1.0"),
    (("CC-BY-SA-3.0", "CC-BY-SA-4.0"), "", "any", "CC-BY-SA-4.0"),
    (("CC-BY-SA-3.0",), "CC-BY-SA-4.0", "any", "CC-BY-SA-4.0"),
    (("CC-BY-SA-3.0-IGO",), "CC-BY-SA-4.0", "any", "CC-BY-SA-4.0"),
    (("CC-BY-NC-4.0",), "other", "non-commercial", "CC-BY-NC-4.0"),
    (("CC-BY-NC-4.0",), "CC-BY-NC-SA-4.0", "non-commercial", "CC-BY-NC-SA-4.0"),
    (("CC-BY-NC-4.0",), "proprietary", "non-commercial", "proprietary"),
    (("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"), "", "non-commercial", "CC-BY-NC-SA-4.0"),
    (("other",), "other", "any", "other"),
    (("other",), "CC-BY-4.0", "any", "CC-BY-4.0"),
    (("other", "ODbL-1.0"), "other", "any", "other"),
    (("other", "ODbL-1.0"), "ODbL-1.0", "any", "ODbL-1.0"),
    (("proprietary", "various"), "", "any", "other"),
    (("MIT", "Copernicus-Sentinel"), "CC-BY-4.0", "any", "CC-BY-4.0"),
    (("AGPL-3.0-only", "US-PD"), "CC0-1.0", "any", "CC0-1.0"),
    (("US-PD",), "US-PD", "any", "other"),
    (("CC-BY-ND-4.0",), "CC-BY-4.0", "internal", "other"),
    (("CC-BY-NC-4.0",), "CC-BY-4.0", "internal", "other"),
    (("CC-BY-NC-4.0",), "other", "internal", "CC-BY-NC-4.0"),
    (("ODbL-1.0", "CC-BY-SA-4.0"), "other", "internal", "other"),
    (("ODbL-1.0",), "other", "internal", "ODbL-1.0"),
    (("CC-BY-4.0",), "CC-BY-4.0", "internal", "CC-BY-4.0"),
]


@pytest.mark.parametrize(("ids", "declared", "use", "expected"), PUBLISHED)
def test_the_licence_follows_from_the_sources(ids, declared, use, expected):
    assert combine(of(*ids), declared, use).license == expected


REFUSED = [
    (("US-PD", "CC-BY-ND-4.0"), "other", "any", "'b' is under CC-BY-ND-4.0.*use: internal"),
    (("CC-BY-NC-ND-4.0",), "", "non-commercial", "'a' is under CC-BY-NC-ND-4.0.*use: internal"),
    (("US-PD", "CC-BY-NC-4.0"), "other", "any", "'b' is under CC-BY-NC-4.0.*use: non-commercial"),
    (("CC-BY-NC-SA-4.0",), "other", "any", "'a' is under CC-BY-NC-SA-4.0.*use: non-commercial"),
    (("ODbL-1.0", "CC-BY-SA-4.0"), "other", "any", "'a'.*ODbL-1.0.*'b'.*CC-BY-SA-4.0"),
    (("CC-BY-SA-4.0", "CC-BY-NC-SA-4.0"), "", "non-commercial", "'a'.*'b'.*CC-BY-NC-SA-4.0"),
    (("ODbL-1.0", "CC-BY-NC-4.0"), "other", "non-commercial", "'b'.*forbids commercial use.*'a'"),
    (("ODbL-1.0",), "CC-BY-4.0", "any", "is CC-BY-4.0, but source 'a'.*license: ODbL-1.0"),
    (("ODbL-1.0",), "proprietary", "any", "is proprietary, but source 'a' asks for ODbL-1.0"),
    (("ODbL-1.0",), "CC-BY-SA-4.0", "any", "asks for ODbL-1.0"),
    (("CC-BY-SA-4.0",), "CC-BY-SA-3.0", "any", "license: CC-BY-SA-4.0"),
    (("CC-BY-SA-4.0",), "CC-BY-NC-SA-4.0", "non-commercial", "license: CC-BY-SA-4.0"),
    (("CC-BY-NC-4.0",), "CC-BY-4.0", "non-commercial", "'a' is under CC-BY-NC.*license: CC-BY-NC"),
    (("CC-BY-NC-4.0",), "CC-BY-SA-4.0", "non-commercial", "license: CC-BY-NC-4.0"),
    (("CC-BY-NC-4.0",), "A-Made-Up-1.0", "non-commercial", "license: CC-BY-NC-4.0"),
    (("US-PD", "CC-BY-4.0"), "CC0-1.0", "any", "CC0-1.0, but source 'b'.*attribution.*CC-BY-4.0"),
    (("Copernicus-Sentinel",), "PDDL-1.0", "any", "asks for attribution"),
]


@pytest.mark.parametrize(("ids", "declared", "use", "message"), REFUSED)
def test_a_conflict_is_refused_with_source_and_remedy(ids, declared, use, message):
    with pytest.raises(RecipeError, match=message):
        combine(of(*ids), declared, use)
    internal = combine(of(*ids), declared, "internal")
    if use == "any" and "use: non-commercial" in message:
        combine(of(*ids), declared, "non-commercial")
    else:
        assert internal.license == "other"
        assert "internal" in internal.obligations
        assert any(note.startswith("for internal use only: ") for note in internal.notes)


@given(sources, declarations, st.sampled_from(USES), st.randoms(use_true_random=False))
def test_the_order_of_sources_does_not_matter(terms, declared, use, chance):
    shuffled = [*terms, *terms[:1]]
    chance.shuffle(shuffled)
    assert outcome(shuffled, declared, use) == outcome(terms, declared, use)


# what whoever gets a map may do with it; of `other` nothing is known
RIGHTS = {
    "CC0-1.0": {"share", "change", "sell", "close", "hush"},
    "MIT": {"share", "change", "sell", "close"},
    "CC-BY-4.0": {"share", "change", "sell", "close"},
    "CC-BY-SA-4.0": {"share", "change", "sell"},
    "ODbL-1.0": {"share", "change", "sell"},
    "CC-BY-NC-4.0": {"share", "change"},
    "CC-BY-NC-SA-4.0": {"share", "change"},
    "proprietary": set(),
}


@given(sources, named, declarations, st.sampled_from(USES))
def test_another_source_never_makes_a_map_laxer(terms, another, declared, use):
    more = outcome([*terms, another], declared, use)
    less = outcome(terms, declared, use)
    if isinstance(more, str):
        return
    assert not isinstance(less, str), "what is refused stays refused"
    assert less.obligations <= more.obligations
    assert set(less.attributions) <= set(more.attributions)
    if {less.license, more.license} <= set(RIGHTS):
        assert RIGHTS[more.license] <= RIGHTS[less.license]


@given(sources, declarations)
def test_a_narrower_use_never_refuses_what_a_wider_one_allows(terms, declared):
    wide, narrow, inside = (outcome(terms, declared, use) for use in USES)
    assert not isinstance(inside, str), "nothing is refused for internal use"
    if not isinstance(wide, str):
        assert wide == narrow
    if not isinstance(narrow, str):
        assert narrow == inside


@given(sources, declarations, st.sampled_from(USES))
def test_a_map_never_grants_what_a_source_withholds(terms, declared, use):
    made = outcome(terms, declared, use)
    if isinstance(made, str) or made.license not in RIGHTS:
        return
    rights, ids = RIGHTS[made.license], [one.license for _, one in terms]
    if any("-NC" in one for one in ids):
        assert "sell" not in rights
    if any(one.endswith("-SA-4.0") or one.startswith("ODbL") for one in ids):
        assert "close" not in rights
        assert made.license != "proprietary"
    if any(one.startswith(("CC-BY", "Copernicus", "ODbL")) for one in ids):
        assert "hush" not in rights
    assert not any("-ND" in one for one in ids)


@given(sources, declarations, st.sampled_from(USES))
def test_whoever_must_be_named_is_named_once(terms, declared, use):
    made = outcome(terms, declared, use)
    if isinstance(made, str):
        return
    assert len(set(made.attributions)) == len(made.attributions)
    for name, one in terms:
        if one.attribution:
            assert one.attribution in made.attributions
        elif one.license.startswith(("CC-BY", "ODbL", "Copernicus")):
            assert f"{name} ({one.license})" in made.attributions


def test_notes_say_who_asks_for_what():
    terms = [
        ("dem", Terms("Copernicus-DEM", "© DLR", "", "no liability")),
        ("streets", Terms("ODbL-1.0", "© OpenStreetMap contributors")),
        ("model", Terms("Apache-2.0")),
        ("tiles", Terms("ask-me")),
    ]
    made = combine(terms, "ODbL-1.0", "any")
    assert made.attributions == ("© DLR", "© OpenStreetMap contributors")
    assert made.obligations == {"attribution", "share-alike", "ask"}
    assert made.notes == (
        "dem: no liability",
        "streets: ODbL-1.0, asks that the map has its licence",
        "model: Apache-2.0, binds copies of the weights, not the map",
        "tiles: terms not known to mapper; ask its owner before publishing the map",
    )
    assert combine([], "A-Made-Up-1.0", "any").notes == (
        "the recipe's licence A-Made-Up-1.0 is not in mapper's table",
    )


@pytest.mark.parametrize(
    ("name", "traits"),
    [
        ("cc-by-4.0", {"attribution"}),
        ("CC-BY-SA-2.5", {"attribution", "share_alike"}),
        ("CC-BY-NC-SA-3.0-IGO", {"attribution", "share_alike", "non_commercial"}),
        ("CC-BY-NC-ND-4.0", {"attribution", "non_commercial", "no_derivatives"}),
        ("odbl-1.0", {"attribution", "share_alike"}),
        ("PDDL-1.0", set()),
        ("BSD-3-Clause", {"software"}),
        ("GPL-3.0-or-later", {"software"}),
        ("MIT", {"software"}),
    ],
)
def test_a_licence_is_known_by_its_spdx_id(name, traits):
    known = license_of(name)
    every = ("attribution", "share_alike", "non_commercial", "no_derivatives", "software")
    assert {trait for trait in every if getattr(known, trait)} == traits
    assert known.known


@pytest.mark.parametrize(
    "name", ["", "other", "various", "proprietary", "CC-BY-4.0-NC", "CC-BY-4.0 OR X"]
)
def test_what_is_no_known_licence_is_said_to_be_unknown(name):
    assert not license_of(name).known


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CC-BY", "CC-BY-4.0"),
        ("cc-by-nc", "CC-BY-NC-4.0"),
        ("CC BY-NC 4.0", "CC-BY-NC-4.0"),
        ("CC-BY-SA", "CC-BY-SA-4.0"),
        ("ODbL", "ODbL-1.0"),
        ("CC-BY-3.0-IGO", "CC-BY-3.0-IGO"),
    ],
)
def test_a_licence_without_a_version_or_with_spaces_binds_as_much(name, meant):
    assert license_of(name) == license_of(meant)
    assert license_of(name).known


def test_a_software_licence_is_none_for_a_map_that_owes_attribution():
    with pytest.raises(RecipeError, match="asks for attribution"):
        combine([("streets", Terms("CC-BY-4.0"))], "MIT", "any")


def test_the_table_finds_each_licence_under_its_own_name():
    assert all(license_of(known.id) is known for known in LICENSES.values())


@pytest.mark.parametrize(
    ("years", "expected"),
    [([2022], "data 2022."), ([2023, 2021, 2023], "data 2021, 2023."), ([], "data.")],
)
def test_the_years_of_the_data_stand_in_its_attribution(years, expected):
    terms = Terms("Copernicus-Sentinel", "data [year].", "https://here", "note")
    assert terms.dated(years) == Terms("Copernicus-Sentinel", expected, "https://here", "note")
