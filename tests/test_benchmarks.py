"""The benchmark runs, and its steps are parts of the whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str) -> dict:
    """Run a benchmark and return the object of its last line."""
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_the_mini_benchmark_ends_in_one_json_line():
    result = run("benchmarks.mini", "--faces", "2")
    assert result["faces"] == 2 and result["input"] == "noise"
    assert all(seconds > 0 for seconds in result["steps_s"].values())
    assert 0 < result["first_words_s"] <= result["chat_answer_s"]
    # of two faces the median is the mean: the steps cannot take longer than the whole
    assert sum(result["steps_s"].values()) <= result["analysis_s"] + 1e-3
    assert sum(result["steps_s"].values()) > 0.8 * result["analysis_s"]


@pytest.mark.slow
def test_the_page_benchmark_ends_in_one_json_line():
    result = run("benchmarks.page", "--visits", "1")
    assert all(
        0 < median <= worst for k, v in result.items() if k != "started_s" for median, worst in [v]
    )
    assert result["weight_kb"][1] <= 400
