"""What an attack finds wrong: texts, and how much."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN_PROBLEMS = 12


@dataclass(slots=True)
class Findings:
    """What is wrong: texts, and how much; bytes are counted by node and account."""

    problems: list[str] = field(default_factory=list)
    lost_bytes: int = 0
    doubled_bytes: int = 0
    wrong_nanos: int = 0


class WrongBooksError(AssertionError):
    """The database does not say what it must."""

    def __init__(self, findings: Findings) -> None:
        shown = findings.problems[:SHOWN_PROBLEMS]
        if len(findings.problems) > len(shown):
            shown.append(f"and {len(findings.problems) - len(shown)} more")
        super().__init__("\n".join(shown))
        self.findings = findings


def findings_of(error: BaseException) -> Findings:
    """Return what was found wrong, wherever in the error it is."""
    if isinstance(error, WrongBooksError):
        return error.findings
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            return findings_of(part)
    return Findings([repr(error)])


def require(problems: list[str]) -> None:
    """Raise WrongBooksError where there are problems."""
    if problems:
        raise WrongBooksError(Findings(problems))
