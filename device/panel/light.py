"""What the light can say, and how it says it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["Light", "light_table"]


class Shine(NamedTuple):
    """How one light looks: colours, and changes a second (0: steady)."""

    red: bool
    green: bool
    blue: bool
    hz: float = 0.0


class Light(Enum):
    """What the panel says."""

    OFF = "off"
    READY = "ready"
    LISTENING = "listening"
    GOOD_CONTACT = "good contact"
    BAD_CONTACT = "bad contact"
    NEXT_SITE = "next site"
    STORED = "stored"
    DELIVERING = "delivering"
    ASK_CANCEL = "cancel?"
    CODE_TAKEN = "code taken"
    CODE_WRONG = "code wrong"
    FEEDBACK = "feedback"
    NO_SOUND = "no sound"
    ERROR = "error"
    SHUTTING_DOWN = "shutting down"

    @property
    def shine(self) -> Shine:
        """How the lamp says it: its colours, and how fast it blinks."""
        return _SHINES[self]

    @property
    def beeps_s(self) -> tuple[float, ...]:
        """How the buzzer says it, seconds of each beep; nothing while a heart is being heard."""
        return _BEEPS_S.get(self, ())


_SHINES = {
    Light.OFF: Shine(False, False, False),
    Light.READY: Shine(True, True, True),
    Light.LISTENING: Shine(False, False, True),
    Light.GOOD_CONTACT: Shine(False, True, True),
    Light.BAD_CONTACT: Shine(True, True, False, 4.0),
    Light.NEXT_SITE: Shine(False, False, True, 1.0),
    Light.STORED: Shine(False, True, False),
    Light.DELIVERING: Shine(False, True, False, 1.0),
    Light.ASK_CANCEL: Shine(True, False, True, 2.0),
    Light.CODE_TAKEN: Shine(False, True, False, 4.0),
    Light.CODE_WRONG: Shine(True, True, False, 1.0),
    Light.FEEDBACK: Shine(True, False, True, 4.0),
    Light.NO_SOUND: Shine(True, False, False, 1.0),
    Light.ERROR: Shine(True, False, False, 4.0),
    Light.SHUTTING_DOWN: Shine(True, True, True, 4.0),
}


_BEEPS_S = {
    Light.NEXT_SITE: (0.1,),
    Light.STORED: (0.4,),
    Light.ASK_CANCEL: (0.1, 0.1),
    Light.CODE_TAKEN: (0.05,),
    Light.CODE_WRONG: (0.2, 0.2),
    Light.NO_SOUND: (0.1, 0.1, 0.1),
    Light.ERROR: (0.1, 0.1, 0.1),
    Light.SHUTTING_DOWN: (0.8,),
}


_BEEP_GAP_S = 0.1


def sounding(beeps_s: tuple[float, ...], at_s: float) -> bool:
    for beep_s in beeps_s:
        if at_s < beep_s:
            return at_s >= 0
        at_s -= beep_s + _BEEP_GAP_S
    return False


def light_table() -> str:
    """The lights as a table in Markdown."""

    def colour(shine: Shine) -> str:
        lit = [name for name in ("red", "green", "blue") if getattr(shine, name)]
        known = {
            "red green blue": "white",
            "red green": "yellow",
            "green blue": "cyan",
            "red blue": "magenta",
        }
        name = known.get(" ".join(lit), lit[0] if lit else "none")
        return name if len(lit) < 2 else f"{name} ({' and '.join(lit)})" if len(lit) == 2 else f"{name} (all)"

    rows = ["| light | colour | how | buzzer |", "|---|---|---|---|"]
    for light in Light:
        shine = light.shine
        how = f"{shine.hz:g} times a second" if shine.hz else "steady"
        beeps = " ".join("–" if beep > 0.3 else "·" for beep in light.beeps_s)
        rows.append(f"| {light.value} | {colour(shine)} | {'' if light is Light.OFF else how} | {beeps} |")
    return "\n".join(rows) + "\n"
