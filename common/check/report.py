"""The answer of a check, as text and as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from common.check.mistakes import MISTAKES
from common.errors import printable
from common.parity.report import finite

SAME, DIFFERS = 0, 3
OPEN = 3  #: unexplained tensors in the text
HIDDEN = 1e-8  #: a difference of the outputs that is rounding alone
SHOWN = 16  #: places of a mistake in the text; the JSON has all


@dataclass
class Finding:
    """One kind of mistake: its name, the fields of its words, all its places, the user's line."""

    name: str
    words: dict[str, Any]
    places: list[str]
    where: str
    others: list[str] = field(default_factory=list)  #: mistakes that give the same numbers

    def sentence(self, language: str = "en") -> str:
        """The mistake in words."""
        template = getattr(MISTAKES[self.name], language)
        return str(template.format(**self.words))


@dataclass
class Difference:
    """A tensor that nothing explains: the step, the line, both shapes and first values."""

    name: str
    where: str
    ours: tuple[list[int], list[float]] | None
    theirs: tuple[list[int], list[float]] | None
    size: int


@dataclass
class Training:
    """What a check of a training step found."""

    rule: str  #: in words; empty if none was found
    error: float | None  #: of the weights after three steps with that rule, by length of a tensor
    findings: list[Finding]
    notes: list[str]
    unexplained: bool = False
    recipe: str = ""  #: that it was compared with

    @property
    def same(self) -> bool:
        """Whether a rule was found, and no mistake."""
        return bool(self.rule) and not self.findings


@dataclass
class Report:
    """What a check found."""

    spec: str
    sizes: list[int]
    dtype: str
    structure: list[Finding]
    findings: list[Finding]
    unexplained: list[Difference]
    residual: float | None  # of the reference with the mistakes; None if unproved
    plain: float | None  # of the reference itself
    notes: list[str]
    chosen: bool  # the user named the spec
    target: str = "your network"
    backend: str = ""
    version: str = ""
    reference: str = "the reference"  # what it is compared with
    weights: list[Finding] | None = None  # the network's own that differ from a file's
    elsewhere: list[Finding] = field(default_factory=list)  # that show at the second size only
    unexplained_elsewhere: list[Difference] = field(default_factory=list)
    training: Training | None = None
    warnings: list[str] = field(default_factory=list)  # what the comparison could not see

    @property
    def function_same(self) -> bool:
        """Whether the network is the reference's function: its outputs were compared and agree."""
        wrong = self.structure or self.findings or self.unexplained
        wrong = wrong or self.elsewhere or self.unexplained_elsewhere
        return not wrong and self.plain is not None and isfinite(self.plain)

    @property
    def same(self) -> bool:
        """Whether the function is the reference's, and so are weights and step, if asked for."""
        step = self.training is None or self.training.same
        return self.function_same and not self.weights and step

    @property
    def outcome(self) -> str:
        """same, differs, unexplained or structure."""
        step = self.training is not None and self.training.unexplained
        if self.unexplained or self.unexplained_elsewhere or (step and self.function_same):
            return "unexplained"
        if self.structure and self.residual is None:
            return "structure"
        if not (self.function_same or self.structure or self.findings or self.elsewhere):
            return "unexplained"  # nothing was compared
        return "same" if self.same else "differs"

    @property
    def status(self) -> int:
        """The exit status."""
        return SAME if self.same else DIFFERS

    @property
    def simple(self) -> bool:
        """Whether at most one mistake explains all, in a network with the spec's structure."""
        explained = self.outcome in ("same", "differs") and not self.structure
        return explained and len(self.findings + self.elsewhere) <= 1

    def weight(self) -> tuple[int, int, int]:
        """How far the network is from the spec, to choose between specs."""
        return (
            len(self.unexplained + self.unexplained_elsewhere) + 10 * (self.outcome == "structure"),
            len(self.structure),
            sum(len(f.places) for f in self.findings + self.elsewhere),
        )

    def as_json(self) -> dict[str, Any]:
        """The report as plain data; a number that is not finite becomes null."""
        plain = asdict(self)
        pairs = [
            (plain[kind] or (), getattr(self, kind) or ())
            for kind in ("structure", "findings", "elsewhere", "weights")
        ]
        if self.training:
            pairs.append((plain["training"]["findings"], self.training.findings))
        for every, findings in pairs:
            for data, finding in zip(every, findings, strict=True):
                data["sentence"] = {lang: finding.sentence(lang) for lang in ("en", "zh")}
                data["link"] = MISTAKES[finding.name].link
                data["words"] = {key: str(value) for key, value in finding.words.items()}
        return {"outcome": self.outcome, "status": self.status, **finite(plain)}

    def text(self) -> str:
        """The report as text."""
        sizes = " and ".join(f"{size}x{size}" for size in self.sizes)
        head = f"{self.target}: {self.backend} {self.version}, {self.dtype}".rstrip()
        closest = self.spec if self.chosen else f"{self.spec}, the closest spec"
        head += f"; compared with {closest}" + (f", at {sizes}" if sizes else "")
        lines = [head, ""]
        if self.function_same:
            lines.append(f"THE SAME FUNCTION. {self._outputs(self.plain)}")
        elif self.outcome == "structure":
            lines.append("ANOTHER STRUCTURE:")
        elif self.outcome == "unexplained":
            lines.append("DIFFERS, UNEXPLAINED.")
        else:
            lines.append("DIFFERS, and here is why:")
        lines += [f"WARNING: {warning}" for warning in self.warnings]
        number = 0
        for finding in (*self.structure, *self.findings):
            number += 1
            lines += self._finding(number, finding)
        lines += self._unexplained()
        if self.weights:
            lines += ["", "The weights of your network are not those of the file:"]
            for each in self.weights:
                number += 1
                lines += self._finding(number, each)
        elif self.weights is not None:
            lines.append("The weights of your network are those of the file.")
        if self.elsewhere or self.unexplained_elsewhere:
            size = self.sizes[-1]
            also = " too" if self.structure or self.findings or self.unexplained else ""
            lines += ["", f"At {size}x{size} it differs in this{also}:"]
            for each in self.elsewhere:
                number += 1
                lines += self._finding(number, each)
            for other in self.unexplained_elsewhere[:OPEN]:
                where = f" ({other.where})" if other.where else ""
                lines.append(f"  UNEXPLAINED there: {other.name}{where}")
            if len(self.unexplained_elsewhere) > OPEN:
                lines.append(f"  and {len(self.unexplained_elsewhere) - OPEN} more")
        if (self.structure or self.findings) and self.outcome == "differs":
            lines += ["", self._proof()]
        if self.training:
            lines += ["", *self._training(self.training, number)]
        lines += [f"Note: {note}" for note in dict.fromkeys(self.notes)]
        return "\n".join(printable(line) for line in lines)

    def _training(self, training: Training, number: int) -> list[str]:
        lines = []
        if training.unexplained:
            lines.append(
                "YOUR TRAINING STEP IS UNEXPLAINED: no known loss and rule give your weights."
            )
        elif training.rule:
            lines.append(f"Your training step: {training.rule}.")
            lines.append(
                f"With it the reference gives your weights of three steps to {training.error:.0e}."
            )
        if training.findings:
            beside = f", beside recipe {training.recipe}" if training.recipe else ""
            lines.append(f"Wrong in the step{beside}:")
        for finding in training.findings:
            number += 1
            lines += self._finding(number, finding)
        if training.rule and not training.findings:
            lines.append(
                f"It is the step of recipe {training.recipe}."
                if training.recipe
                else "No mistake was found in it."
            )
        return [*lines, *(f"Note: {note}" for note in training.notes)]

    def _outputs(self, error: float | None) -> str:
        return (
            f"Your outputs are those of {self.reference} to {error:.0e}."
            if error is not None
            else ""
        )

    def _finding(self, number: int, finding: Finding) -> list[str]:
        count = len(finding.places)
        place = finding.places[0] if finding.places else ""
        more = f" and {count - 1} more" if count > 1 else ""
        lines = [f"  {number}. {finding.name}: {finding.sentence()}"]
        parts = [part for part in (finding.where, f"{place}{more}" if place else "") if part]
        lines.append(f"     at {f', {self.reference} at '.join(parts)}" if parts else "")
        if count > 1:
            rest = f" and {count - SHOWN} more" if count > SHOWN else ""
            lines.append("     all: " + ", ".join(finding.places[:SHOWN]) + rest)
        if finding.others:
            lines.append("     The same numbers also come from: " + "; ".join(finding.others))
        lines.append(f"     {MISTAKES[finding.name].link}")
        return [line for line in lines if line.strip()]

    def _unexplained(self) -> list[str]:
        lines = []
        for number, each in enumerate(self.unexplained[:OPEN]):
            label = "The first tensor" if number == 0 else "Another tensor"
            theirs = self.reference != "the reference"  # of another network, with its lines
            name = f"{self.reference}'s {each.name}" if theirs else each.name
            at = "yours at" if theirs else "at"
            lines.append(
                f"{label} that no known mistake explains is {name}"
                + (f", {at} {each.where}" if each.where else "")
                + f" ({each.size}x{each.size}):"
            )
            for whose, facts in ((self.reference, each.ours), ("yours", each.theirs)):
                if facts:
                    values = ", ".join(f"{value:.6g}" for value in facts[1])
                    lines.append(f"     {whose}: shape {tuple(facts[0])}, first values {values}")
                else:
                    lines.append(f"     {whose}: cannot be computed")
        if len(self.unexplained) > OPEN:
            lines.append(f"{len(self.unexplained) - OPEN} more tensors are not explained.")
        if self.unexplained and self.findings:
            lines.append(
                "The mistakes listed above hold at their places, but with them alone "
                f"{self.reference} does not give your outputs."
            )
        return lines

    def _proof(self) -> str:
        count = len(self.structure) + len(self.findings)
        these = "this" if count == 1 else f"these {count} changes"
        if self.plain is None or self.plain == float("inf"):
            plain = ""
        elif self.plain > HIDDEN:
            plain = f" Without, it differs from them by {self.plain:.1g}."
        else:
            plain = " Without, it gives them too: the difference does not reach the outputs here."
        proved = f"{self.reference} with {these} gives your outputs to {self.residual:.0e}."
        return f"Proof: {proved}{plain}"
