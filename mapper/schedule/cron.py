"""When: five fields as cron has them, and the same as systemd's OnCalendar."""

import re
from dataclasses import dataclass

from mapper.errors import UsageError

NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
)
_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_PART = re.compile(r"(?:(?P<all>\*)|(?P<first>\d+)(?:-(?P<last>\d+))?)(?:/(?P<step>\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When something is started, field by field; None is any."""

    text: str
    fields: tuple[tuple[int, ...] | None, ...]
    """Minutes, hours, days of the month, months, days of the week (Sunday is 0)."""

    @property
    def on_calendar(self) -> tuple[str, ...]:
        """OnCalendar expressions, all of which together say the same.

        Cron starts where the day of the month or the day of the week fits, if both are given;
        systemd where both do. Two expressions say what cron means.
        """
        minute, hour, day, month, weekday = self.fields
        clock = f"{_listed(hour)}:{_listed(minute)}:00"
        whole = f"*-{_listed(month)}-{_listed(day)} {clock}"
        if weekday is None:
            return (whole,)
        names = ",".join(dict.fromkeys(_DAYS[number] for number in weekday))
        weekly = f"{names} *-{_listed(month)}-* {clock}"
        return (weekly,) if day is None else (whole, weekly)


def _listed(values: tuple[int, ...] | None) -> str:
    return "*" if values is None else ",".join(f"{value:02d}" for value in values)


def read_times(text: str) -> Times:
    """Five cron fields of numbers, lists, ranges and steps, or a name like `@monthly`.

    Raises: UsageError.
    """
    written = NAMED.get(text, text)
    parts = written.split()
    if len(parts) != len(_FIELDS):
        raise UsageError(
            f"--at {text!r} has {len(parts)} fields; cron has five, e.g. '0 3 2 * *' for three "
            f"o'clock on the second of every month, or {', '.join(NAMED)}"
        )
    fields = tuple(_field(part, *known) for part, known in zip(parts, _FIELDS, strict=True))
    return Times(text=written, fields=fields)


def _field(text: str, name: str, low: int, high: int) -> tuple[int, ...] | None:
    if text == "*":
        return None
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise UsageError(f"--at: {part!r} is no {name}; give numbers, 1-5, */2 or a list")
        first = low if match["all"] else int(match["first"])
        # a number with a step goes on to the end, as a star does
        last = high if match["all"] or (match["step"] and not match["last"]) else first
        last = int(match["last"]) if match["last"] else last
        step = int(match["step"] or 1)
        if not (low <= first <= last <= high) or step < 1:
            raise UsageError(f"--at: {part!r} is no {name} from {low} to {high}")
        found |= set(range(first, last + 1, step))
    if low == 0 and high == 7:
        found = {number % 7 for number in found}
    return tuple(sorted(found))
