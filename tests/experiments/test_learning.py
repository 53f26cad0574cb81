import csv
from pathlib import Path

import pytest

from experiments import folder
from experiments.studies import learning

HEADER = "iteration,decisions,decisions_per_second,return_mean,seconds,validation_mean"


def a_run(path, values, score):
    """Validated every two minutes; 10 decisions a second more in each of them."""
    path.mkdir()
    rows = [
        f"{i},{1000 * i},{100 + 10 * i},0,{120 * i},{value}"
        for i, value in enumerate(values, 1)
    ]
    text = "\n".join([HEADER, *rows]) + "\n"
    (path / folder.METRICS).write_text(text, encoding="utf-8")
    if score is not None:
        folder.write_json(path / folder.SUMMARY, {"mean": score, "sd": 5.0})
    return path


@pytest.fixture
def runs(tmp_path):
    return [
        a_run(tmp_path / "a", [10, 50, 40], 45.0),
        a_run(tmp_path / "b", [20, 30, 60], 55.0),
    ]


def test_what_a_run_has_come_to(runs):
    found = learning.result(runs[0], minutes=7)
    assert found == ("a", 3, 6.0, 3000, 120, 40, 50, 45.0, 5.0)
    assert learning.result(runs[0], minutes=2)[:2] == ("a", 1)
    with pytest.raises(SystemExit, match="no validation within 1 minutes"):
        learning.result(runs[0], minutes=1)


def test_the_mean_of_the_runs_stands_below_them(runs, tmp_path, capsys):
    learning.main([*map(str, runs), "--minutes", "5", "--out", str(tmp_path / "out")])
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "| mean of 2 | 2 | 4 | 2,000 | 115 | 40 | 40 | 50 | 5 |"
    with open(tmp_path / "out" / "learning.csv", newline="") as file:
        assert [row["best"] for row in csv.DictReader(file)] == ["50.0", "30.0"]
    assert (tmp_path / "out" / "learning.png").stat().st_size > 1000


def test_names_leave_out_the_hash_where_they_differ_without():
    seeds = [f"CarRacing-es-s{seed}-0123abcd" for seed in range(2)]
    paths = [Path("runs", name) for name in seeds]
    assert learning.names(paths) == ["CarRacing-es-s0", "CarRacing-es-s1"]
    alike = ["CarRacing-es-s0-0123abcd", "CarRacing-es-s0-89abcdef"]
    assert learning.names([Path("a", name) for name in alike]) == alike
    own = ["CarRacing-es-s0", "wide-start"]
    assert learning.names([Path(name) for name in own]) == own
