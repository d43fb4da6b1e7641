"""The texts of the energy report in each language."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aurum.api.energy_report.schemas import Language, ReportNote

_FOLDER = Path(__file__).with_name("text")


@dataclass(frozen=True, slots=True)
class ReportTexts:
    """The texts in one language.

    Attributes:
        language: The language.
        words: Titles, names of columns and the like, by their key.
        notes: Remarks with placeholders, by their code.
        method: How the numbers are computed.
        decimal: The decimal sign.
        thousands: The sign between thousands.
    """

    language: Language
    words: dict[str, str]
    notes: dict[str, str]
    method: list[str]
    decimal: str
    thousands: str

    def __getitem__(self, key: str) -> str:
        return self.words[key]

    def note(self, code: str, **parameters: str | float) -> ReportNote:
        """Returns a remark by its code."""
        shown = {
            name: self.number(value, 0 if isinstance(value, int) else 1) if isinstance(value, int | float) else value
            for name, value in parameters.items()
        }
        return ReportNote(code=code, parameters=dict(parameters), text=self.notes[code].format_map(shown))

    def number(self, value: float, decimals: int) -> str:
        """Returns a number in the form of the language."""
        whole, _, fraction = f"{value:,.{decimals}f}".partition(".")
        return whole.replace(",", self.thousands) + (self.decimal + fraction if fraction else "")


@cache
def load_texts(language: Language) -> ReportTexts:
    """Returns the texts of a language."""
    content = json.loads((_FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return ReportTexts(language, **content)
