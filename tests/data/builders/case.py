"""What a builder shall make of its fixture."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    name: str
    rows: dict[str, int]
    fault: tuple | None
    """Field and reason of the malformed row; or several such pairs."""
    config: str | None = None
    folder: str | None = None
    first: dict = field(default_factory=dict)
    """Part of the first training row, encoded, as declared."""
    inputs: int | None = None
    leak: str | None = None
