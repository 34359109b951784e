"""How the code reads, in figures: this project's own, or those of other source folders beside it.

    python tests/style.py
    python tests/style.py data engine ../httpx/httpx ../dinov3/dinov3

A code line holds more than blanks, a comment or a docstring. Counts are per 1000 code lines.
"""

import ast
import io
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("data", "engine", "launch", "models")
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
MANY_POSITIONAL = 5


@dataclass
class Figures:
    """Sums over the files of a project."""

    code_lines: int = 0
    characters: int = 0
    shared_assignments: int = 0  # several names bound by one statement
    comprehensions: int = 0
    nested_comprehensions: int = 0  # two or more ``for`` in one
    conditional_expressions: int = 0
    long_calls: int = 0  # five or more positional arguments
    functions: int = 0
    keyword_only: int = 0  # functions with at least one keyword-only parameter
    longest_file: int = 0  # lines
    longest_function: int = 0  # lines
    suppressions: int = 0  # comments that switch a check off

    def row(self) -> list[str]:
        """The figures as they are printed, in the order of ``COLUMNS``."""
        thousand = self.code_lines / 1000
        return [
            f"{self.code_lines}",
            f"{self.characters / self.code_lines:.1f}",
            f"{self.shared_assignments / thousand:.1f}",
            f"{self.comprehensions / thousand:.1f}",
            f"{self.nested_comprehensions / thousand:.1f}",
            f"{self.conditional_expressions / thousand:.1f}",
            f"{self.long_calls / thousand:.1f}",
            f"{100 * self.keyword_only / self.functions:.1f} %",
            f"{self.longest_file}",
            f"{self.longest_function}",
            f"{self.suppressions}",
        ]


COLUMNS = (
    "code lines",
    "characters a line",
    "several assigned",
    "comprehensions",
    "two or more for",
    "conditional expr.",
    "5+ positional",
    "keyword-only",
    "longest file",
    "longest function",
    "suppressions",
)


def measure(files: list[Path]) -> Figures:
    """Figures of some Python files."""
    figures = Figures()
    for file in files:
        source = file.read_text(encoding="utf-8")
        tree = ast.parse(source, str(file))
        _count_lines(figures, source, tree)
        for node in ast.walk(tree):
            _count_node(figures, node)
    return figures


def _count_lines(figures: Figures, source: str, tree: ast.Module) -> None:
    """Lines that hold code, and their characters, indentation included."""
    holding = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            holding.update(range(token.start[0], token.end[0] + 1))
        elif token.type == tokenize.COMMENT:
            figures.suppressions += "# noqa" in token.string or "# type: ignore" in token.string
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            holding.difference_update(range(docstring.lineno, docstring.end_lineno + 1))
    lines = source.split("\n")
    figures.code_lines += len(holding)
    figures.characters += sum(len(lines[number - 1]) for number in holding)
    figures.longest_file = max(figures.longest_file, source.count("\n"))


def _count_node(figures: Figures, node: ast.AST) -> None:
    """One node of the syntax tree."""
    if isinstance(node, ast.Assign):
        target = node.targets[0]
        unpacked = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
        figures.shared_assignments += unpacked or len(node.targets) > 1
    elif isinstance(node, COMPREHENSIONS):
        figures.comprehensions += 1
        figures.nested_comprehensions += len(node.generators) > 1
    elif isinstance(node, ast.IfExp):
        figures.conditional_expressions += 1
    elif isinstance(node, ast.Call):
        figures.long_calls += len(node.args) >= MANY_POSITIONAL
    elif isinstance(node, FUNCTIONS):
        figures.functions += 1
        figures.keyword_only += bool(node.args.kwonlyargs)
        length = node.end_lineno - node.lineno + 1
        figures.longest_function = max(figures.longest_function, length)


def python_files(folder: Path) -> list[Path]:
    """The Python files of a folder, or the file itself."""
    if folder.is_file():
        return [folder]
    return sorted(folder.rglob("*.py"))


def main() -> None:
    """Print one row for this project and one for each path of the command line."""
    rows = []
    if len(sys.argv) == 1:
        own = []
        for name in FOLDERS:
            own += python_files(ROOT / name)
        rows.append(("this project", measure(own).row()))
    for argument in sys.argv[1:]:
        rows.append((argument, measure(python_files(Path(argument))).row()))
    print("| | " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---|" * len(COLUMNS))
    for name, row in rows:
        print(f"| {name} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
