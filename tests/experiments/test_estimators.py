import csv
import math

import numpy as np
from PIL import Image

from experiments.studies import estimators
from iap import theory


def test_writes_what_it_prints(tmp_path, capsys):
    estimators.main(["--draws", "2000", "--out", str(tmp_path)])
    printed = capsys.readouterr().out.splitlines()
    rows = {}
    for name in ("utility", "errors"):
        with open(tmp_path / f"{name}.csv", newline="") as file:
            rows[name] = list(csv.DictReader(file))
        with Image.open(tmp_path / f"{name}.png") as image:
            colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
        assert len(np.unique(colours, axis=0)) > 100
    measured = 0
    for row in rows["utility"] + rows["errors"]:
        what, numbers = row.pop("what"), {k: float(v) for k, v in row.items()}
        if what == "r":
            closed = theory.utility(numbers["angle"], numbers["length"])
            assert numbers["theory"] == closed
        error = numbers["standard_error"]
        if math.isfinite(error):
            measured += 1
            # 4 standard errors, and the skew of positive features' squares beyond.
            slack = 4 * error + 0.3 * numbers["theory"]
            assert abs(numbers["monte_carlo"] - numbers["theory"]) < slack
    assert measured > 100
    assert len(printed) == 2 + measured
