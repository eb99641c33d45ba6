"""verdict.json: what a gate said of a version, rule by rule, and the evidence that it said it on. docs/gate.md."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from deerfield.documents.reading import Document, Number, Part, Truth


class RuleVerdict(Part):
    """One rule of the gate, and what came of it."""

    # the name becomes part of the name of a tag
    rule: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.: -]{0,99}$")]
    passed: Truth
    value: Number | None = None
    limit: Number | None = None
    detail: str = ""


class Verdict(Document):
    """verdict.json; `expected_champion` is empty where there was none."""

    WHAT: ClassVar[str] = "the verdict of a gate"

    passed: Truth
    model: str
    version: str
    expected_champion: str
    rules: tuple[RuleVerdict, ...] = Field(min_length=1)
    evidence: Mapping[str, Any] = {}

    @model_validator(mode="after")
    def _holds_together(self) -> "Verdict":
        names = [each.rule for each in self.rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"rules: {twice[0]} stands there twice")
        if self.passed != all(each.passed for each in self.rules):
            raise ValueError(f"passed: it is {self.passed}, and its rules say otherwise")
        return self
