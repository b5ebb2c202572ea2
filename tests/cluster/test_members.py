"""Who the workers are, and whether they fit."""

import pytest

from mapper.cluster.likeness import differences, software, told
from mapper.cluster.members import Members
from mapper.cluster.options import ClusterOptions
from mapper.errors import UsageError


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Scheduler:
    """A client of a scheduler with some workers: resources and software of each."""

    def __init__(self, **workers):
        self.workers = workers
        self.asked, self.retired = [], []

    def scheduler_info(self, n_workers):
        assert n_workers == -1, "Dask tells of five workers otherwise"
        return {"workers": {a: {"resources": r} for a, (r, _) in self.workers.items()}}

    def run(self, what, workers, on_error):
        assert on_error == "ignore"
        self.asked += workers
        return {a: self.workers[a][1] for a in workers if self.workers[a][1] is not None}

    def retire_workers(self, workers, close_workers):
        assert close_workers
        self.retired += workers


OWN = {"mapper": "1", "numpy": "2.1"}


def members_of(**workers):
    clock = Clock()
    scheduler = Scheduler(**workers)
    return Members(scheduler, check=lambda: OWN, patience=60, clock=clock), scheduler, clock


def test_workers_offer_what_all_of_a_wish_is_covered_by():
    found, _, _ = members_of(a=({"GPU": 1}, OWN), b=({"GPU": 1, "NET": 2}, OWN), c=({}, OWN))
    found.look()
    assert [found.offering(w) for w in ({}, {"GPU": 1}, {"GPU": 1, "NET": 2}, {"GPU": 2})] == [
        3,
        2,
        1,
        0,
    ]


def test_each_worker_is_asked_once_and_newcomers_too():
    found, scheduler, _ = members_of(a=({}, OWN))
    found.look()
    scheduler.workers["b"] = ({}, OWN)
    found.look()
    found.look()
    assert scheduler.asked == ["a", "b"]
    assert set(found.present) == {"a", "b"}


def test_a_worker_with_other_versions_is_sent_away_and_does_not_count():
    found, scheduler, _ = members_of(a=({"GPU": 1}, {**OWN, "numpy": "2.0"}), b=({}, OWN))
    found.look()
    assert scheduler.retired == ["a"]
    assert set(found.present) == {"b"}
    assert not found.offering({"GPU": 1})


def test_a_worker_that_died_before_it_could_answer_is_asked_again():
    found, scheduler, _ = members_of(a=({}, None))
    found.look()
    assert not found.present
    scheduler.workers["a"] = ({}, OWN)
    found.look()
    assert set(found.present) == {"a"}


def test_what_nobody_offers_is_said_when_patience_ends_and_not_before():
    found, _, clock = members_of(a=({}, OWN))
    found.look()
    found.complain({"GPU": 1})
    clock.now = 59
    found.complain({"GPU": 1})
    clock.now = 60
    with pytest.raises(UsageError, match=r"resource GPU.*--resources \"GPU=1\".*--device cpu"):
        found.complain({"GPU": 1})


def test_a_worker_that_comes_in_between_starts_the_patience_anew():
    found, scheduler, clock = members_of(a=({}, OWN))
    found.look()
    found.complain({"GPU": 1})
    scheduler.workers["b"] = ({"GPU": 1}, OWN)
    found.look()
    found.complain({"GPU": 1})
    del scheduler.workers["b"]
    clock.now = 100
    found.look()
    found.complain({"GPU": 1})
    clock.now = 159
    found.complain({"GPU": 1})


def test_where_all_workers_differ_the_error_says_how():
    found, _, clock = members_of(a=({}, {**OWN, "numpy": "2.0"}), b=({}, {"mapper": "1"}))
    found.look()
    found.complain({})
    clock.now = 61
    with pytest.raises(UsageError, match=r"a and 1 more.*numpy 2\.1 here, 2\.0 there"):
        found.complain({})


def test_differences_name_both_sides_and_what_is_missing():
    assert differences({"a": "1", "b": "2"}, {"a": "1", "c": "3"}) == [
        "b 2 here, missing there",
        "c missing here, 3 there",
    ]
    assert told({"w": ["x"] * 6}) == "w: x; x; x; x and 2 more"


def test_software_tells_another_code_of_the_same_version(tmp_path, monkeypatch):
    import mapper
    from mapper.cluster import likeness

    here = software()
    assert here["mapper"] == mapper.__version__
    assert here["numpy"]
    (tmp_path / "mapper").mkdir()
    (tmp_path / "mapper" / "__init__.py").write_text("")
    monkeypatch.setattr(mapper, "__file__", str(tmp_path / "mapper" / "__init__.py"))
    other = dict(likeness.software.__wrapped__())
    assert [d.split()[0] for d in differences(here, other)] == ["mapper's"]


@pytest.mark.parametrize("where", ["locl", "slurm2", "127.0.0.1:8786"])
def test_what_is_neither_a_kind_nor_an_address_is_refused(where):
    with pytest.raises(UsageError, match=r"local, cuda, slurm, kubernetes, ssh"):
        ClusterOptions(where=where)


def test_workers_are_counted_from_one():
    with pytest.raises(UsageError, match="--workers 0"):
        ClusterOptions(workers=0)
    assert ClusterOptions(where="tls://a:1").kind == "address"
