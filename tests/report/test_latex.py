"""LaTeX tables: what they say, and that pdfLaTeX sets them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lottalora.cli.main import main
from lottalora.report.from_rows import blocks_of
from lottalora.report.latex import DEFAULT
from lottalora.report.latex import latex
from lottalora.report.latex import tex
from lottalora.report.tables import COLUMNS
from lottalora.report.tables import headings
from lottalora.results import rows
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row

ROOT = Path(__file__).parents[2]
BLOCKS = blocks_of(
    [
        make_baseline(seed=1, score=0.98),
        make_baseline(seed=2, score=0.99),
        make_row(seed=1, score=0.96),
        make_row(seed=2, score=0.97),
        make_row(mode="head", rank=0, alpha=None, arms={}),
        make_row(recipe="modified", changed={"a|b_c": "x & y"}),
    ]
)
DOCUMENT = r"""\documentclass{article}
\usepackage[margin=2cm]{geometry}
\begin{document}
\input{recovery.tex}
\end{document}"""


def test_tables_have_as_many_columns_as_they_declare_and_at_most_eight():
    text = latex(BLOCKS)
    declared = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [len(columns) for columns in declared] == [len(DEFAULT)] * len(BLOCKS) == [8] * len(BLOCKS)
    assert len(body) == sum(len(block.lines) + 1 for block in BLOCKS)
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {7}


def test_columns_are_those_asked_for():
    text = latex(BLOCKS, ["rank", "paper"])
    assert r"rank & paper \\" in text and r"8 & 96.80 \\" in text
    assert len(COLUMNS) == len(headings(BLOCKS[0].metric))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("rank,scoer", "Unknown column 'scoer'. Did you mean 'score'?"),
        (",".join(COLUMNS[:9]), "takes one to 8 names, got 9"),
    ],
)
def test_columns_that_do_not_exist_or_do_not_fit_are_refused_in_one_line(tmp_path, capsys, columns, said):
    rows.write(make_row(), tmp_path)
    assert main(["report", "--results", str(tmp_path), "--columns", columns]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_every_table_has_a_label_of_its_own():
    found = re.findall(r"\\label\{([^}]*)\}", latex(BLOCKS))
    assert len(set(found)) == len(BLOCKS)
    assert "tab:mlp-mnist-medium" in found


def test_a_minus_is_a_true_one_and_a_hyphen_stays():
    assert tex("−0.30") == tex("-0.30") == "$-$0.30"
    assert tex("11k-steps, 1e-3") == "11k-steps, 1e-3"
    assert r"& $-$0.30 \\" in latex(BLOCKS)


def test_environments_and_braces_are_balanced():
    text = latex(BLOCKS)
    opened, closed = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    assert sorted(opened) == sorted(closed)
    assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))


def test_letters_that_latex_reads_as_commands_are_escaped():
    assert tex("a_b & 5 % #1 {x}") == r"a\_b \& 5 \% \#1 \{x\}"
    assert tex("\\") == r"\textbackslash{}"


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="no pdfLaTeX: apt-get install texlive-latex-base"
)
@pytest.mark.parametrize("made_of", ["factory", "repository"])
def test_pdflatex_sets_the_tables_without_a_complaint(tmp_path, made_of):
    blocks = BLOCKS if made_of == "factory" else blocks_of(rows.read_all(ROOT / "results")[0])
    (tmp_path / "recovery.tex").write_text(latex(blocks))
    (tmp_path / "paper.tex").write_text(DOCUMENT)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert ran.returncode == 0, ran.stdout[-1500:]
    wide = [float(width) for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", ran.stdout)]
    assert all(width < 2 for width in wide), wide
