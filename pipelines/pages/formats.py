"""How figures and names are written, in terminals and on pages alike."""

from math import isinf


def number(value: float | str | None, form: str = ".3g") -> str:
    """A figure for a table: a dash where there is none, a word where it is infinite."""
    if value is None:
        return "–"
    if isinstance(value, str) or isinf(value):
        return "infinite"
    return format(value, form)


def size(count: int) -> str:
    """Bytes, in thousands or millions."""
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.2f} kB"


def short(name: str, most: int = 26) -> str:
    """A name that fits beside a picture: of a long one its two ends, which tell it from others."""
    plain = "".join(each if each.isprintable() else " " for each in name)
    return plain if len(plain) <= most else f"{plain[: most - 9]}…{plain[-8:]}"
