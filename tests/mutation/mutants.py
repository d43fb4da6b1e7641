"""The changes that mutmut makes in a file, each with the line that it changes."""

import ast
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutmut.mutation.file_mutation import mutate_file_contents

_BETWEEN = "ǁ"  # x_function, but xǁClassǁmethod, is what mutmut calls a function that it changes
_ORIGINAL, _NUMBER = "__mutmut_orig", "__mutmut_"


@dataclass(frozen=True)
class Mutant:
    """A change. name: mutmut's. line: the first that is changed. before, after: the changed lines, each stripped."""

    name: str
    file: str
    function: str
    line: int
    before: str
    after: str

    @property
    def change(self) -> tuple[str, str, str, str]:
        """What tells it from others, wherever in its function it is."""
        return self.file, self.function, self.before, self.after


def mutants_of(path: Path, root: str) -> Iterator[Mutant]:
    """All that mutmut makes in a file below src/, with its configuration in the current folder. root: what src/ is."""
    source = path.read_text()
    made = mutate_file_contents(str(path), source)
    below = path.relative_to("src")
    module = ".".join(below.with_suffix("").parts).removesuffix(".__init__")
    starts = {name: start for name, start, _ in _functions(source)}
    lines = {name.rpartition(".")[2]: lines for name, _, lines in _functions(made.code)}
    for name in made.mutant_names:
        mangled = name.partition(_NUMBER)[0]
        function = ".".join(mangled.split(_BETWEEN)[1:]) or mangled.removeprefix("x_")
        at, before, after = _difference(
            [line.replace(mangled + _ORIGINAL, "") for line in lines[mangled + _ORIGINAL]],
            [line.replace(name, "") for line in lines[name]],
        )
        yield Mutant(f"{module}.{name}", f"{root}/{below.as_posix()}", function, starts[function] + at, before, after)


def _functions(source: str) -> Iterator[tuple[str, int, list[str]]]:
    """Qualified name, first line and lines of those that stand in a module or in its classes."""
    lines = source.split("\n")
    for node in ast.parse(source).body:
        prefix, body = (f"{node.name}.", node.body) if isinstance(node, ast.ClassDef) else ("", [node])
        for each in body:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + each.name, each.lineno, lines[each.lineno - 1 : each.end_lineno]


def _difference(before: Sequence[str], after: Sequence[str]) -> tuple[int, str, str]:
    """Where two differ first, and the lines of each that the other does not have."""
    codes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    changed = [code for code in codes if code[0] != "equal"]
    removed = [line.strip() for _, start, end, _, _ in changed for line in before[start:end]]
    added = [line.strip() for _, _, _, start, end in changed for line in after[start:end]]
    return changed[0][1], "\n".join(removed), "\n".join(added)
