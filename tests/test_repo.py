"""The repository's own rules: imports one way and without effects, sizes, versions."""

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import feallm

ROOT = Path(__file__).parent.parent
SOURCES = [
    ROOT / "app.py",
    *sorted(p for d in ("feallm", "page", "train", "benchmarks") for p in (ROOT / d).rglob("*.py")),
]
PAGES = [
    *(ROOT / d / "README.md" for d in (".", "train", "train/mini", "benchmarks")),
    ROOT / "assets" / "feallm-mini" / "README.md",
]
FORBIDDEN = {
    "feallm": {"app", "page", "train", "benchmarks", "gradio"},
    "train": {"app", "page", "benchmarks", "gradio"},
    "page": {"app", "train", "benchmarks", "numpy", "torch"},
    "app": {"train", "benchmarks", "numpy", "gradio"},
    "benchmarks": {"app", "gradio"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert not imported(path) & FORBIDDEN[part]


def test_importing_feallm_does_no_work():
    code = "import sys, feallm; print(feallm.__version__, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == [feallm.__version__, "False"]
    assert done.stderr == ""


def test_every_module_of_training_can_be_imported_without_its_data_tools():
    modules = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts)
        for p in SOURCES
        if p.parts[-2] != "feallm"
    ]
    code = "import importlib\n" + "\n".join(
        f"importlib.import_module({m.removesuffix('.__init__')!r})" for m in modules
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_changelog_names_this_version():
    newest = re.search(
        r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert newest.group(1) == feallm.__version__


def test_no_file_is_over_ten_megabytes():
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, cwd=ROOT).stdout
    files = [ROOT / name.decode() for name in listed.split(b"\0") if name]
    big = [
        f for f in files or (ROOT / "assets").rglob("*") if f.is_file() and f.stat().st_size > 10e6
    ]
    assert big == []
    mini = sum(f.stat().st_size for f in (ROOT / "assets" / "feallm-mini").iterdir())
    assert mini <= 40e6


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_readme_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    files = re.findall(r"`((?:train|feallm|page|tests|benchmarks|assets)/[\w/.-]+)`", text)
    modules = re.findall(r"python -m ((?:train|feallm|benchmarks)[\w.]*)", text)
    configs = re.findall(r"train/configs/[\w/]+\.yaml", text)
    assert links or files
    named = [
        *(page.parent / link for link in links if "://" not in link),
        *(ROOT / name for name in files + configs),
    ]
    assert [str(path) for path in named if not path.exists()] == []
    assert [name for name in modules if find_spec(name) is None] == []
