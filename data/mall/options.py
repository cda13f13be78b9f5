"""`a=b` words of a command line as a Mall."""

import chz
from chz.blueprint import ExtraneousBlueprintArg, InvalidBlueprintArg

from data.errors import UserError
from data.mall.config import Mall


def mall_of(options: list[str]) -> Mall:
    if wrong := [o for o in options if "=" not in o]:
        raise UserError(f"{wrong[0]}: options of the mall have the form name=value, as in size=tiny")
    try:
        return chz.Blueprint(Mall).make_from_argv(options)
    except (ExtraneousBlueprintArg, InvalidBlueprintArg) as error:
        said = [line for line in str(error).splitlines() if line and "Failed to interpret it as" not in line]
        raise UserError(f"mall: {'; '.join(said[:2])}") from error


def take(options: list[str], name: str, *, default: int) -> tuple[int, list[str]]:
    """The whole number given as name=value, and the other options."""
    found = [o for o in options if o.startswith(f"{name}=")]
    if not found:
        return default, options
    value = found[-1].partition("=")[2]
    if not value.isdecimal():
        raise UserError(f"{name}={value}: give a whole number")
    return int(value), [o for o in options if o not in found]
